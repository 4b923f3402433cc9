"""What webhooks are signed with, and whoever knows it can verify them by."""

import base64
import secrets

from filelock import FileLock

from darkroom.config import SECRET_PREFIX, Settings, signing_key
from darkroom.storage.files import write_key

SECRET_BYTES = 32


class SecretError(Exception):
    """There is no secret that could be used. Says what to do."""


def find(settings: Settings) -> str:
    """The secret: the setting's, else the one in the data folder, which is made if need be.

    Processes that come together take turns, and find the same one.

    Raises:
        SecretError: it cannot be read, or there is no space for it.
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
            return found
    except OSError as error:
        raise SecretError(f"{path} cannot be read or made: {error.strerror}") from None
    except ValueError:
        # Another one in its place would be one that no receiver knows.
        raise SecretError(
            f"{path} is damaged; put a copy back, or delete it and tell all receivers the new one"
        ) from None
