# Every target sets up what it needs: `make demo` and `make test` work on a fresh clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Python keeps what it has compiled, whatever the environment says: the tests start many processes, and every process
# of pytest would compile all tests anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-fast test-python test-optuna-main test-lowest release-check coverage lint hooks docs bench clean

# What each target needs installed; the stamp files say that it is. Of the two launchers of MPI that
# the tests start, one goes into a folder of its own: both call theirs mpirun.
$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e ".[onnx]"
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[test]"
	$(PIP) install -c constraints.txt --no-deps --upgrade --target $(VENV)/mpich mpich
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) install -c constraints.txt -e ".[docs]"
	touch $@

demo: $(VENV)/.base
	$(BIN)/python examples/digits/demo.py

# Two workers share two cores: threads of one would wait, in a loop, for a core that the other has.
test test-fast coverage: export OMP_NUM_THREADS ?= 1

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(PYTEST_ARGS)

# The fast tests on each Python that the package names; those that are not installed are skipped.
test-python:
	.ci/pythons $(PYTEST_ARGS)

# Chosen tests with the lowest versions of the dependencies that the package allows.
test-lowest:
	.ci/lowest $(PYTEST_ARGS)

# The wheel and the sdist, installed into new environments with each extra. It takes minutes.
release-check:
	.ci/release-check

# The fast tests, with the share of lines that they run; it fails below the floor.
coverage: $(VENV)/.test
	.ci/coverage $(PYTEST_ARGS)

# Skipped, with the reason, where it cannot be downloaded; OPTUNA names another version or a checkout.
test-optuna-main: $(VENV)/.test
	PYTHON=$(BIN)/python .ci/optuna-main $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Before each commit: formatting, lint and types. They use the virtual environment and download nothing.
hooks: $(VENV)/.test
	$(BIN)/pre-commit install

# Into a folder named by the version; those of other versions stay, and each page leads to them.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html/$$($(BIN)/python docs/versions.py)
	$(BIN)/python docs/versions.py docs/_build/html

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) demo_output docs/_build
