"""What is told of a job's end, and the signature by which a receiver knows who told it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json

import darkroom
from darkroom.responses import Job


def content(job: Job) -> bytes:
    """The body: what happened, when, and the job as `GET /jobs/{id}` has it.

    Without how far its webhook is, which changes with every attempt. Links stay relative: the only
    name of this server that is known here is the one that whoever asked called it by.
    """
    ended = job.finished_at or job.created_at
    message = {
        "type": f"job.{job.status}",
        "timestamp": ended.isoformat().replace("+00:00", "Z"),
        "data": job.model_dump(mode="json", exclude={"webhook"}),
    }
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def headers(job_id: str, body: bytes, key: bytes, now: float) -> dict[str, str]:
    """Of one attempt. The id is the same for all attempts, so that a receiver can tell a repeat.

    Args:
        job_id: of the job, which ends once.
        body: as it is sent.
        key: of the signature.
        now: seconds since the epoch.
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
