# Each target does its own set-up; a second run starts at once. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := server sdk training inside benchmarks deploy tests hatch_build.py mobile_client/build_client.py
# Programs that tests run and pip does not install, such as Chromium: `yes` installs what is missing
# as root, `no` skips the tests that need it, `required` fails without it.
SYSTEM ?= yes
# A file's tests stay together. OpenMP in several processes at once only costs. Files with few tests
# would be begun last, and some of those take long.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PYTEST := OMP_NUM_THREADS=1 DARKROOM_TEST_SYSTEM=$(SYSTEM) $(BIN)/pytest
CLIENT := $(BIN)/python mobile_client/build_client.py

.PHONY: help serve client test test-all soak image-check lock check fmt generate bench load gpu-check train train-upscaler evaluate inside install programs clean
.DEFAULT_GOAL := serve

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

serve: install ## install, start the server, show its address and a QR code (ARGS="--port 8000")
	@$(CLIENT) || echo "Serving without the page for phones."
	$(BIN)/darkroom serve $(ARGS)

client: install ## build the page for phones into the server's package
	@$(CLIENT)

test: programs client ## run the daily tests (SYSTEM=no installs no system packages; ARGS="tests/queue")
	@$(CLIENT) run --silent test
	$(PYTEST) $(PARALLEL) -m "not slow" $(ARGS)

test-all: test ## run the daily tests, then the slow ones
	DARKROOM_TESTS=all $(PYTEST) $(PARALLEL) -m slow $(ARGS)

soak: programs client ## run the tests that kill, flood, forge and damage in their full numbers: over two hours
	DARKROOM_TESTS=soak $(PYTEST) tests/faults tests/security tests/queue tests/fleet \
		tests/engine/test_faults_at_random.py tests/engine/test_bad_folders.py \
		tests/engine/test_equality.py tests/engine/test_openvino.py tests/api/test_explain.py $(ARGS)

image-check: $(VENV)/.image ## build and test the container image: ten minutes, several gigabytes
	$(BIN)/python -m tests.image

# Versions change only where pyproject.toml asks for others.
lock: $(VENV)/.image ## write requirements.lock and requirements.fleet.lock, the versions in the container image
	$(BIN)/uv pip compile --quiet --no-annotate --python-version 3.11 --python-platform linux \
		--custom-compile-command "make lock" --no-emit-package torchvision --group upscaling \
		pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --no-annotate --python-version 3.11 --python-platform linux \
		--custom-compile-command "make lock" --no-emit-package torchvision --extra fleet --extra s3 \
		--constraint requirements.lock pyproject.toml --output-file $(VENV)/fleet.lock
	grep -vxFf requirements.lock $(VENV)/fleet.lock > requirements.fleet.lock

check: install ## lint, check formatting, types and import directions
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(CLIENT) run --silent check

fmt: install ## format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	@$(CLIENT) run --silent fmt

# From the API document; a test compares.
generate: install ## write the SDK's requests and blocking client, and the phone client's types
	$(BIN)/python sdk/write_requests.py $(VENV)
	$(BIN)/python sdk/write_blocking.py
	$(CLIENT) exec -- openapi-typescript $(CURDIR)/$(VENV)/openapi.json --output src/lib/transport/schema.d.ts

bench: install ## measure, and fail if a figure is over its limit (ARGS=--write)
	$(BIN)/python -m benchmarks $(ARGS)

load: install ## load a running server with many clients (ARGS="--rate 5 --clients 50 --listeners 200")
	$(BIN)/python -m benchmarks.load_tool $(ARGS)

gpu-check: install ## check the engine on this machine's GPU, and measure it (ARGS="--budget-s 420")
	$(BIN)/python -m benchmarks.gpu_check $(ARGS)

train: $(VENV)/.training ## train tintype, the demo model, further (ARGS="--budget-s 3600")
	$(BIN)/python -m training $(ARGS)

train-upscaler: $(VENV)/.training ## train tintype's upscalers further (ARGS="--scale 2")
	$(BIN)/python -m training.upscaler $(ARGS)

evaluate: $(VENV)/.training ## measure how well tintype draws, with contact sheets
	$(BIN)/python -m training.evaluate $(ARGS)

inside: install ## make the pictures of docs/how-it-works.md: a minute
	$(BIN)/python -m inside

install: $(VENV)/.installed ## make .venv with everything that server and tests need

$(VENV)/.image: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group image
	@touch $@

programs:
	@$(PYTHON) tests/programs.py $(SYSTEM)

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
	$(BIN)/python -m pip install --quiet --group train
	@touch $@

clean: ## delete .venv, the built client and data, pictures included
	rm -rf $(VENV) data mobile_client/node_modules server/darkroom/client
