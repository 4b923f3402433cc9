"""What a job's picture looks like on its way."""

import base64

from darkroom.api.context import context
from darkroom.images import codec
from darkroom.requests import OutputFormat


def preview(job_id: str) -> str | None:
    """A job's first picture as it was seen last: base64 of a PNG; None if nothing was seen yet."""
    found = context().store.last_preview(job_id)
    if found is None:
        return None
    with context().rendering:
        return base64.b64encode(codec.transcode(found.webp, OutputFormat.PNG)).decode()
