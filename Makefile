# Two words to remember: `make demo` shows it, `make test` proves it. Nothing but Python 3.11+ and make is needed.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
# The GPU build of ONNX Runtime where there is an NVIDIA driver, else the CPU build; the two exclude each other.
RUNTIME ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# OpenCV's usual build wants a desktop's libGL and glib; on a bare server its headless build, the same otherwise, does.
CV = $(BIN)/python -c 'import cv2' 2>/dev/null || { echo 'No libGL here: taking the headless build of OpenCV'; \
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python && $(PIP) opencv-python-headless; }

.PHONY: demo test check env dev real clean help
help:
	@echo 'make demo   a whole simulated session of one grid, then a report to open'
	@echo 'make test   ruff, mypy, import rules and every test'
	@echo 'make check  ruff, mypy and import rules only'
	@echo 'make real   finders against the hand-marked images in ../shared/data'

env: $(VENV)/.ready-$(RUNTIME)
dev: $(VENV)/.ready-dev

$(VENV)/.ready-$(RUNTIME): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'Cryonaut needs Python 3.11 or newer; set PYTHON=/path/to/python3.11'; exit 1; }
	@echo "Making the environment in $(VENV) with $(PYTHON) ($(RUNTIME)); the first time takes a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[$(RUNTIME)]'
	@$(CV)
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-$(RUNTIME)
	@$(PIP) -e '.[$(RUNTIME),dev]'
	@$(CV)
	@touch $@

demo: env
	@$(BIN)/cryonaut demo

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m 'not slow'

real: env
	$(BIN)/python -m benchmarks.real_images

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
