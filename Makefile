# `make sample` and `make test` set up what they need in .venv and work from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: sample test test-long test-radosgw check clean

sample: $(STAMP)
	$(BIN)/lmmpress run --sample --out out/sample --resume

test: $(STAMP)
	$(BIN)/pytest

# What takes minutes each: whole pipelines as processes, images.
test-long: $(STAMP)
	$(BIN)/pytest -m long

# The tests of the store against a second, independent S3 server: Ceph RGW, installed from Debian's packages.
test-radosgw: $(STAMP)
	command -v radosgw >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd; }
	$(BIN)/pytest --s3-server radosgw tests/store/test_store.py tests/store/test_bucket.py tests/store/test_housekeeping.py \
		tests/store/test_rights_enforced.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) out build *.egg-info
