# Every target builds what it needs: a virtual environment in .venv, with the versions of constraints.txt.
#   make demo     curate the packaged footage, end to end
#   make test     run the tests, in two processes, of which each takes whole files: fixtures of a module are made once
#   make test-slow   run those that are left out there because each takes more than a minute
#   make lint     ruff and mypy
#   make bench    compare against peers and bare kernels
# PYTHON=python3.12 make setup   picks another interpreter (3.11 or newer)

PYTHON ?= python3
BIN := .venv/bin

# mediapipe's wheel links libEGL and libGLESv2, opencv's libGL and glib; minimal images lack them.
NATIVE_LIBRARIES := libEGL.so.1 libGLESv2.so.2 libGL.so.1 libglib-2.0.so.0
DEBIAN_PACKAGES := libegl1 libgles2 libgl1 libglib2.0-0

# The audit page is tested in a browser: any of these.
BROWSERS := chromium chromium-browser google-chrome

.PHONY: setup demo test test-slow bench lint models machine browser

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt | machine
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

machine:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "$(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@[ "$$(uname -s)" != Linux ] || \
	$(PYTHON) -c 'import ctypes, sys; [ctypes.CDLL(name) for name in sys.argv[1:]]' $(NATIVE_LIBRARIES) 2>/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-upgrade --no-install-recommends $(DEBIAN_PACKAGES); \
	else \
	  echo "Some of these libraries are missing: $(NATIVE_LIBRARIES)"; \
	  echo "On Debian and Ubuntu: sudo apt-get install $(DEBIAN_PACKAGES)"; \
	  exit 1; \
	fi

browser:
	@for name in $(BROWSERS); do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-upgrade --no-install-recommends chromium; \
	else \
	  echo "The tests of the audit page need one of these: $(BROWSERS)"; \
	  echo "On Debian: sudo apt-get install chromium"; \
	  exit 1; \
	fi

models: setup
	$(BIN)/faceloom models fetch

demo: models
	$(BIN)/faceloom demo

# Half of the time tests wait for Ray, so there is one process more than CI has cores; threads of torch would only wait too.
test: models browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 40

test-slow: models
	$(BIN)/python -m pytest -m slow

bench: models
	$(BIN)/python -m bench.curation

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
