# `make sample` and `make test` set up what they need in .venv and work from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
DOCS_STAMP := $(VENV)/installed-docs

.DEFAULT_GOAL := help
.PHONY: help sample trigger-demo test test-long test-radosgw cluster-test bench bench-table reproduce check docs docs-serve clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

sample: $(STAMP)  ## set up, and compress the built-in sample model on this machine
	$(BIN)/lmmpress run --sample --out out/sample --resume

trigger-demo: $(STAMP)  ## MLflow, the trigger and the sample model on this machine: a new version is compressed
	$(BIN)/python examples/trigger_demo.py out/trigger-demo

test: $(STAMP)  ## set up, and run the tests
	$(BIN)/pytest

test-long: $(STAMP)  ## the tests that take minutes each: whole pipelines as processes, images
	$(BIN)/pytest -m long

test-radosgw: $(STAMP)  ## the tests of the store against Ceph RGW, a second S3 server, from Debian's packages
	command -v radosgw >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd; }
	$(BIN)/pytest --s3-server radosgw tests/store

cluster-test: $(STAMP)  ## the chart and whole runs on the cluster of KUBECONFIG, an hour or two (CONTRIBUTING.md)
	$(BIN)/pytest -m cluster -n 0 -s -v $(CLUSTER_TEST_OPTIONS) tests/cluster

bench: $(STAMP)  ## the benches that need two cores alone, then a table of all figures; or ONLY=importance,cut
	$(BIN)/python -m tools.benches run --only "$(ONLY)"

bench-table: $(STAMP)  ## the table of what was measured for the docs, without measuring
	$(BIN)/python -m tools.benches table

reproduce: $(STAMP)  ## the paper's tables and figures on the presets, in hours; QUICK=1 in minutes; SEEDS=3, PRESETS="sample"
	PYTHONPATH=bench $(BIN)/python -m reproduce run $(if $(QUICK),--quick) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(PRESETS),--presets $(PRESETS))

check: $(STAMP)  ## the checks that read the code: style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.floors

docs: $(DOCS_STAMP)  ## the site of the documentation, in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: $(DOCS_STAMP)  ## the same on http://127.0.0.1:8000, made again at every change
	$(BIN)/mkdocs serve

clean:  ## remove .venv, out and build
	rm -rf $(VENV) out build *.egg-info

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $(DOCS_STAMP)
