# make report   set up, train what is missing, run the notebooks, build report.html and report.pdf in
#               report/<profile>-<dataset>/, or in report/ itself for the paper profile on cifar10
# make bundle   zip the report with its notebooks, facts and list of runs, for handing in
# make test     set up, run the tests (all notebooks at profile smoke among them)
# make verify   reload the best model of every run in OUTPUTS and compare its accuracy with what the run says
# make lint     check the code and the notebooks       make lab     JupyterLab       make clean   remove what a report left

PROFILE  ?= quick
DATASET  ?= digits
DATA_DIR ?= data
SEEDS    ?= 0
OUTPUTS  ?= outputs
JOBS     ?= auto
PYTHON   ?= python3

BIN   := .venv/bin
STUDY := --profile "$(PROFILE)" --dataset "$(DATASET)" --data-dir "$(DATA_DIR)" --seeds "$(SEEDS)" --outputs "$(OUTPUTS)"

# A misspelled variable would silently leave the default in force.
KNOWN   := PROFILE DATASET DATA_DIR SEEDS OUTPUTS JOBS PYTHON TESTS
UNKNOWN := $(filter-out $(KNOWN),$(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name))))
$(if $(UNKNOWN),$(error unknown variable $(UNKNOWN); allowed are $(KNOWN)))

.PHONY: report train bundle test verify lint lab clean
.DELETE_ON_ERROR:

report: train
	$(BIN)/python -m report.build $(STUDY)

bundle: .venv/installed
	$(BIN)/python -m report.bundle $(STUDY)

train: .venv/installed
	$(BIN)/python -m lib.study $(STUDY) --jobs "$(JOBS)"

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

verify: .venv/installed
	$(BIN)/python -m lib.engine.verify --outputs "$(OUTPUTS)" --data-dir "$(DATA_DIR)"

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

lab: .venv/installed
	$(BIN)/jupyter lab notebooks

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	@echo "setting up .venv: PyTorch and what else requirements.txt names, 3 GB to download and one to five minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	git clean -fdXq -- outputs/notebooks outputs/results.csv report .pytest_cache .ruff_cache
