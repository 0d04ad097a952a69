# `make demo` and `make test` do all the set-up they need; a second run re-uses what stands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TORCH := $(if $(filter aarch64 arm64,$(shell uname -m)),torch==2.9.1 torchvision==0.24.1,torch==2.14.1 torchvision==0.29.1)
EXTRAS := all,dev
export BIOVFM_MEDMNIST_ROOT ?= $(abspath $(wildcard ../shared/data))
export PIP_DISABLE_PIP_VERSION_CHECK = 1
unexport PYTHONDONTWRITEBYTECODE

SECONDS ?= 60
DEBIAN := gcc libc6-dev libjpeg62-turbo-dev libarchive13 chromium

.PHONY: demo test unit fuzz fuzz-readers lint setup system demo-s3 clean

demo: setup
	$(BIN)/biovfm demo --out demo-out

# The quick tests come first: a mistake shows within a minute. Both parts count for the coverage of the packages.
test: setup lint
	rm -f .coverage .coverage.*
	$(BIN)/pytest --unit -n 2 -q --cov --cov-report= --cov-fail-under=0
	$(BIN)/pytest --heavy -n 2 --dist loadfile -q --cov --cov-append --cov-report=term

unit: setup
	$(BIN)/pytest --unit -n 2 -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Both harnesses of the C code under the sanitizers; needs clang with its runtime.
fuzz: setup
	@$(MAKE) --no-print-directory system DEBIAN="clang libclang-rt-14-dev"
	$(BIN)/python -m tests.shards.native.fuzz --seconds $(SECONDS)

# Every reader, and every parser of archives and lists, on mutations of real files, SECONDS each.
fuzz-readers: setup
	$(BIN)/python -m tests.ingest.readers.fuzz --seconds $(SECONDS)
	$(BIN)/python -m tests.ingest.raw.fuzz --seconds $(SECONDS)

demo-s3: setup
	$(BIN)/biovfm demo --s3 --out demo-out-s3

setup: $(STAMP)

# One pip call resolves everything; the compiler and libjpeg-turbo's headers make the fast decoder, where they are there.
$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard shards/native/*.[ch])
	@$(MAKE) --no-print-directory system
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# Debian packages that help and are not needed: built into the set-up only where it runs as root with apt.
system:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  missing=""; \
	  for p in $(DEBIAN); do \
	    dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	  if [ -n "$$missing" ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing \
	      >/dev/null || echo "could not install:$$missing (going on without)"; fi; fi

clean:
	rm -rf $(VENV) demo-out demo-out-s3
