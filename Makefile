# Every target sets up .venv by itself: it needs Python 3.11 or newer, make and a network.
# --no-compile: Python compiles what it imports, which is a small part of what is installed, and saves a minute.
# Windows: the README has the same in plain pip commands.
SHELL := /bin/bash
export PYTHONDONTWRITEBYTECODE := # where it is set, every process would compile torch again, for 5 seconds
PYTHON ?= python3
VENV := .venv/bin
READY := .venv/.ready
SLOW := %compile.py %onnx.py %sync.py
CORE := $(filter-out $(SLOW),$(wildcard tests/layers/test_*.py)) # nothing that compiles, exports or starts processes

.PHONY: help book pdf epub test check bench explore verdicts replicate exercises repository colab test-colab test-oldest test-newest lint clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up .venv (some minutes the first time)"; \
	started=$$SECONDS; \
	rm -rf .venv && $(PYTHON) -m venv .venv && \
	$(VENV)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt && \
	touch $(READY) && echo "Set up in $$((SECONDS - started)) s"

book: $(READY) ## build the book into _build/html; SOLUTIONS=1: with the exercises' solutions, into a folder of its own
	@$(VENV)/python -m tools.$(if $(SOLUTIONS),solutions,build)

pdf: book ## print the book into one PDF, beside the zip
	@$(VENV)/python -m tools.pdf

epub: book ## write the book as an EPUB, beside the zip
	@$(VENV)/python -m tools.epub

test: $(READY) ## check everything: package, notebooks, built book, exercises
	-@$(VENV)/python -m tools.notebooks # on all cores; if one fails, the tests say so. Pages are made beside other tests
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder # one more than the cores: tests wait, too

check: lint ## the inner loop, in less than a minute: style, types, the layers' core
	$(VENV)/mypy
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist worksteal -q $(CORE)

bench: $(READY) ## measure the layers' speed for the README's table
	$(VENV)/python benchmarks/run.py

explore: $(READY) ## run a chapter on the exploration's seeds: make explore CHAPTER=06
	@$(VENV)/python -m tools.explore $(CHAPTER)

verdicts: $(READY) ## write the verdicts that the book expects; review the diff
	@$(VENV)/python -m tools.verdicts

replicate: $(READY) ## judge every claim again on other seeds: make replicate SEEDS=100-109
	@$(VENV)/python -m tools.replicate $(if $(SEEDS),--seeds $(SEEDS))

exercises: $(READY) ## make the student notebooks from the instructor's sources
	$(VENV)/python instructor/make.py

repository: $(READY) ## say where the course is published: make repository URL=https://github.com/OWNER/NAME
	$(VENV)/python -m tools.repository $(if $(filter undefined,$(origin URL)),,"$(URL)")

colab: $(READY) ## write notebooks that carry the package inside them to _build/colab
	$(VENV)/python -m tools.colab

test-colab: ## run the notebooks with the versions that Colab has
	$(PYTHON) -m tools.environments colab

test-oldest: ## run the tests with the oldest versions that pyproject.toml promises
	$(PYTHON) -m tools.environments oldest

test-newest: ## run the tests with the newest versions there are
	$(PYTHON) -m tools.environments newest

lint: $(READY) ## ruff over the package, the tests and the notebooks
	$(VENV)/ruff check . && $(VENV)/ruff format --check .

clean: ## remove what was built, .venv too
	rm -rf _build .venv .venv-* .pytest_cache .ruff_cache .mypy_cache
