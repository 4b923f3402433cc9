"""`/sdapi/v1`: the API of AUTOMATIC1111's web UI, for clients that were written for it.

Requests are read tolerantly: what the server cannot do is left out, and named in the answer. The
fields and their meaning are those of that project's `modules/api/models.py`, `modules/api/api.py`
and `modules/processing.py`, version 1.10.
"""

from darkroom.compat.a1111 import extras, generate, png_info, status

blueprints = (generate.blueprint, status.blueprint, extras.blueprint, png_info.blueprint)
