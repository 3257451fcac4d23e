# The commands of this project. `make demo` and `make test` each work on a fresh machine with Python 3.10 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
PAIR := experiments/tpe.yml experiments/evolution.yml

# The studies at the demo's scale. WEIGHTS=FILE stands in for ImageNet's, which the pretrained study would download.
STUDIES := early_stopping learning_rate step_size balance distill pretrained
SEEDS := 4
WEIGHTS :=

# Files side by side; those that start NNI one after the other in a process of their own (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.PHONY: help demo studies report test test-fast calibrate bench profile bench-analysis gpu-check lint format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

demo: .venv/ready  ## two real NNI experiments of 15 trials each on a generated sample, compared: 6 to 10 minutes on 2 cores
	$(BIN)/python -m data sample data/sample_photos
	$(BIN)/python -m data prepare data/sample_photos --cache data/sample_cache --image-px 96
	@mkdir -p runs/demo
	$(BIN)/python -m experiments launch $(PAIR) --demo --parallel > runs/demo/experiments.txt; \
	  code=$$?; cat runs/demo/experiments.txt; exit $$code
	$(BIN)/python -m analysis compare $$(awk '/^experiment / {print $$3}' runs/demo/experiments.txt) --out runs/demo

studies: .venv/ready  ## all six studies on the generated sample, 4 seeds each, then make report; run it again to continue
	$(BIN)/python -m data sample data/sample_photos
	$(BIN)/python -m data prepare data/sample_photos --cache data/sample_cache --image-px 96
	$(BIN)/python -m experiments study $(STUDIES) --demo --seeds $(SEEDS) $(if $(WEIGHTS),--weights $(WEIGHTS))
	$(MAKE) report

report: .venv/ready  ## the studies' pages again, their numbers kept in docs/studies, and docs/report.md from these
	for name in $(STUDIES); do $(BIN)/python -m analysis study $$name || exit $$?; done
	$(BIN)/python -m analysis report --keep docs/studies

test: .venv/test-ready lint  ## everything, real NNI and a real browser among it
	$(PYTEST)

test-fast: .venv/test-ready  ## without the tests that start NNI or train for long
	$(PYTEST) -m "not nni and not slow"

calibrate: .venv/ready  ## simulate the verdicts where the truth is known; about 6 minutes of one core
	$(BIN)/python -m analysis.calibrate

bench: .venv/ready  ## the figures of docs/performance.md, measured here: 1 to 2 hours on 2 cores
	$(BIN)/python -m benchmarks

profile: .venv/ready  ## where one epoch goes, by part and by operator: about a minute
	$(BIN)/python -m benchmarks.epoch

gpu-check: .venv/ready  ## the same and a short search on a GPU, appended to docs/log.md
	$(BIN)/python -m data sample data/sample_photos
	$(BIN)/python -m data prepare data/sample_photos --cache data/sample_cache --image-px 96
	$(BIN)/python -m benchmarks.gpu_check $(PARTS)

bench-analysis: .venv/test-ready  ## time and memory for 10,000 to 100,000 trials, NNI's own export beside; about 5 minutes
	$(BIN)/python -m benchmarks.analysis

lint: .venv/test-ready  ## style, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/test-ready  ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: reference
reference: .venv/test-ready  ## the generated parts of README.md and docs/reference.md
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_docs.py -k generated

clean:  ## remove what demo and test made, except downloads and experiments
	rm -rf runs data/sample_photos data/sample_cache .pytest_cache .ruff_cache

.venv/ready: requirements.txt experiments/repairs/__init__.py
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info[:2] <= (3, 13) else "Python 3.10 to 3.13 is needed, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m experiments.repairs
	@touch $@

.venv/test-ready: .venv/ready tests/requirements.txt requirements-tools.txt
	$(BIN)/python -m pip install -r tests/requirements.txt -r requirements-tools.txt
	@touch $@
