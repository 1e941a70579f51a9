# `make lab` opens the notebooks, `make test` runs every check; both set up .venv first.
.DEFAULT_GOAL := help
.PHONY: help lab test check constraints notebooks pictures docs imgs photographs screenshots bench soak clean

PYTHON ?= python3
VENV := .venv/bin
FIRST := notebooks/01_define_a_network.ipynb
# Two processes of one thread each: torch's own threads would get in each other's way.
export OMP_NUM_THREADS := 1

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

lab: ## open the notebooks in JupyterLab
	@$(PYTHON) .ci/setup.py notebooks
	@echo "Opening JupyterLab; Ctrl-C here stops it."
	@# The shell outlives Ctrl-C, so that make sees an orderly end and not an interrupt.
	@unset OMP_NUM_THREADS; trap : INT; $(VENV)/jupyter lab -y --Application.log_level=ERROR \
	    --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url="/lab/tree/$(FIRST)" \
	    $(if $(filter 0,$(shell id -u)),--allow-root) && echo "JupyterLab has stopped."

test: ## run every check: lint, types, tests, notebooks, browser
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/pytest -q -n 2 --dist loadfile
	$(VENV)/pytest -q -n 2 --dist loadfile --nbval notebooks

QUICK := $(addprefix tests/test_, architecture.py data.py extras.py gradients.py network.py \
    notebook.py notebooks.py packaging.py public_names.py running.py shapes.py updates.py)

check: ## lint, types and the quick tests, while you work
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/pytest -q -n 2 --dist loadfile -k "not strict_checker and not nbval_catches" $(QUICK)

constraints: ## write constraints.txt anew: the newest packages beside its torch
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/python .ci/constraints.py

notebooks: ## run all notebooks afresh and store their outputs
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/python .ci/notebooks.py

pictures: ## the same, and store every picture anew, as after a change to a plot
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/python .ci/notebooks.py --pictures

docs: ## build the site of all pages and the reference, into docs/build/html
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/sphinx-build -q -W --keep-going docs docs/build/html
	@echo "Open docs/build/html/index.html"

imgs: ## draw everything in imgs/ anew
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/python imgs/draw.py

photographs: ## photograph what the README shows, with the system's browser
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/python imgs/photograph.py

screenshots: ## photograph every notebook in JupyterLab, in both themes, into screenshots/
	@$(PYTHON) .ci/setup.py dev
	SCREENSHOTS=screenshots $(VENV)/pytest -q tests/test_browser.py

bench: ## measure beside the alternatives, into benchmarks/results.*
	@$(PYTHON) .ci/setup.py dev
	@$(VENV)/python benchmarks/environment.py
	benchmarks/.venv/bin/python -m benchmarks.run

soak: ## thousands of random networks, and the notebooks twenty times under hardship
	@$(PYTHON) .ci/setup.py dev
	$(VENV)/python benchmarks/soak.py

clean: ## remove the environment and all caches
	rm -rf .venv benchmarks/.venv docs/build docs/api docs/imgs docs/notebooks .mypy_cache .pytest_cache .ruff_cache .hypothesis screenshots
