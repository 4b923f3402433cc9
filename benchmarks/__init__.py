"""What Darkroom costs, measured: `make bench` runs everything and writes docs/benchmarks.md."""

import os

# Read when transformers is first imported; see darkroom/engine/__init__.py.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
