# One environment in .venv, made when it is missing or pyproject.toml has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(shell find src -name '*.py' -o -name '*.html' -o -name '*.css' -o -name '*.md')

.PHONY: setup demo test test-fast lint results clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: call make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

# The main job on made images; again at once when nothing has changed.
demo: demo/run/report.html
	@echo "The report of the demo: $(CURDIR)/demo/run/report.html"

demo/run/report.html: $(READY) $(SOURCES)
	@rm -rf demo
	$(BIN)/fewlabel phantoms demo/images --count 1500 --size 32 --difficulty easy
	$(BIN)/fewlabel import demo/images --labels demo/images/labels.csv --patient-column "Patient ID" --to demo/chest
	$(BIN)/fewlabel learn demo/chest --target reticulation --out demo/run --size 32 --steps 300 --batch-size 64 \
		--budgets 5,10,25,50 --headline-budget 10 --seeds 2

# Each of the two workers has one thread: more would wait for each other on two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not real"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

# Tables and figures of README and docs, made from benchmarks/results.
results: $(READY)
	$(BIN)/python benchmarks/make_tables.py

clean:
	rm -rf $(VENV) demo build dist *.egg-info src/*.egg-info
