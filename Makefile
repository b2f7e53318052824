# Every target sets up .venv by itself: it needs Python 3.11 or newer, make and a network.
# Windows: the README has the same in plain pip commands.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv/bin
READY := .venv/.ready
NOTEBOOKS = $$($(VENV)/python tools/toc.py)

.PHONY: help book test bench exercises repository colab test-colab test-oldest test-newest lint clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Setting up .venv (some minutes the first time)"; \
	started=$$SECONDS; \
	rm -rf .venv && $(PYTHON) -m venv .venv && \
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt && \
	touch $(READY) && echo "Set up in $$((SECONDS - started)) s"

book: $(READY) ## build the book into _build/html
	@$(VENV)/python tools/build.py

test: $(READY) ## check everything: package, notebooks, built book, exercises
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env tests $(NOTEBOOKS)

bench: $(READY) ## measure the layers' speed for the README's table
	$(VENV)/python benchmarks/run.py

exercises: $(READY) ## make the student notebooks from the instructor's sources
	$(VENV)/python instructor/make.py

repository: $(READY) ## say where the course is published: make repository URL=https://github.com/OWNER/NAME
	$(VENV)/python tools/repository.py $(if $(filter undefined,$(origin URL)),,"$(URL)")

colab: $(READY) ## write notebooks that carry the package inside them to _build/colab
	$(VENV)/python tools/colab.py

test-colab: ## run the notebooks with the versions that Colab has
	$(PYTHON) tools/environments.py colab

test-oldest: ## run the tests with the oldest versions that pyproject.toml promises
	$(PYTHON) tools/environments.py oldest

test-newest: ## run the tests with the newest versions there are
	$(PYTHON) tools/environments.py newest

lint: $(READY) ## ruff over the package, the tests and the notebooks
	$(VENV)/ruff check . && $(VENV)/ruff format --check .

clean: ## remove what was built, .venv too
	rm -rf _build .venv .venv-* .pytest_cache .ruff_cache
