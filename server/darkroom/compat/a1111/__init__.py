"""`/sdapi/v1`: the API of AUTOMATIC1111's web UI, for clients that were written for it.

Tolerant in, exact out: what a request asks for and nothing here can do is left out, and named in
the answer. Which fields there are and what they mean is read from that project's
`modules/api/models.py`, `modules/api/api.py` and `modules/processing.py`, version 1.10.
"""

from darkroom.compat.a1111 import extras, generate, listings, options, png_info, progress

PREFIX = "/sdapi/v1"

blueprints = tuple(
    module.blueprint for module in (generate, progress, options, listings, extras, png_info)
)
