"""The secret that signs webhooks, and the headers that carry the signature.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import secrets

from filelock import FileLock

import darkroom
from darkroom.config import SECRET_PREFIX, Settings, signing_key
from darkroom.errors import DarkroomError
from darkroom.storage.files import write_key
from darkroom.storage.shared_keys import Agree, alone

SECRET_BYTES = 32


class SecretError(DarkroomError):
    """No usable secret. The message says what to do."""


def find(settings: Settings, agree: Agree = alone) -> str:
    """The secret from the settings, else from the data folder, where it is created if need be.

    Processes that start at the same time get the same one.

    Args:
        agree: see `shared_keys`. What it raises goes on.

    Raises:
        SecretError: it cannot be read or written, or is damaged.
    """
    if settings.webhooks.secret is not None:
        return settings.webhooks.secret.get_secret_value()
    path = settings.webhook_secret_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                made = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
                write_key(path, made.encode())
            found = path.read_text().strip()
            signing_key(found)
            return agree(path, found.encode()).decode()
    except OSError as error:
        raise SecretError(f"{path} cannot be read or made: {error.strerror}") from None
    except ValueError:
        # A new secret would be one that no receiver knows.
        raise SecretError(
            f"{path} is damaged; put a copy back, or delete it and give all receivers the new one"
        ) from None


def headers(job_id: str, body: bytes, key: bytes, now: float) -> dict[str, str]:
    """The headers of one attempt, whose `body` is as it is sent, at `now` since the epoch.

    A job has one message, about its end. All attempts to deliver it have the same id, so that a
    receiver can recognise a repetition.
    """
    message_id, timestamp = f"msg_{job_id}", str(int(now))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "user-agent": f"darkroom/{darkroom.__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }
