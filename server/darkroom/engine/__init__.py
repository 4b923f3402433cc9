"""Generates images. The only package of the server that imports torch; no Flask, no SQL."""

import os

# Read when transformers is first imported, which is too early for a call to have effect: it would
# otherwise advise every owner to install torchvision, which nothing here needs.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
