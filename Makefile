# make app        start the app (creates the environment the first time)
# make setup      create the environment only
# make quick      lint, types and the tests that need neither a browser nor a download
# make test       everything: lint, types and every test
# make lint       formatter, linter, import rules, types
# make format     format every file
# make coverage   every test, with a report of the lines that none of them runs
# make docs       the API reference, in docs/reference
# make notebook   run the example notebook and render it as docs/first_look.md
# make bench      every benchmark, one after the other
PYTHON ?= python3
PORT ?= 8501
VENV := .venv
BIN := $(VENV)/bin
HEAVY := small_model or default_model or browser
QUICK := not slow and not ($(HEAVY))
# Two processes of one thread each: with models as tiny as most tests', threads mostly wait for each other.
PYTEST2 := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# Compile each module once. Without this, where the variable is set, every start of Python compiles all of torch's imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: app setup quick test lint format coverage docs notebook bench clean browser
.DEFAULT_GOAL := app

app: setup
	$(BIN)/python -m streamlit run app.py --server.address 127.0.0.1 --server.port $(PORT)

setup: $(VENV)/.installed

# uv installs in seconds what takes pip a minute, so pip installs uv first. But pip downloads torch, because only pip reads its
# own configuration, which may name an index with a build for CPUs. Without uv, pip installs everything.
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH = $(shell grep '^torch==' requirements.txt)

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: name one with make PYTHON=/path/to/python3."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet uv && $(PIP) download --quiet --no-deps --dest $(VENV)/wheels "$(TORCH)" \
	  && $(BIN)/uv pip install --quiet --python $(BIN)/python $(VENV)/wheels/torch-*.whl -r requirements.txt \
	  || { echo "uv could not install everything (see above), so pip installs it, which takes longer."; $(PIP) install --quiet -r requirements.txt; }
	rm -rf $(VENV)/wheels
	touch $@

$(VENV)/.tested: $(VENV)/.installed tests/requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r tests/requirements.txt || $(PIP) install --quiet -r tests/requirements.txt
	touch $@

browser:
	@command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 \
	  || { command -v apt-get >/dev/null 2>&1 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
	  || { echo "The browser tests need Chromium: install it (on Debian, as root: apt-get install chromium) and run make test again."; exit 1; }

lint: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quick: lint
	$(PYTEST2) -m "$(QUICK)"

test: $(VENV)/.tested browser lint
	$(PYTEST2) --dist loadfile -m "not ($(HEAVY))"
	$(BIN)/python -m pytest -m "$(HEAVY)"

coverage: $(VENV)/.tested browser lint
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=html

notebook: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet kaleido
	$(BIN)/python docs/make_notebook.py

docs: $(VENV)/.tested
	$(BIN)/python docs/make_reference.py

bench: setup
	for script in benchmarks/[a-z]*.py; do PYTHONPATH=. $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV)
