# `make` lists the targets. Two of them are all a newcomer needs: `make quickstart`, `make test`.
SHELL := /bin/bash
BIN := .venv/bin
# Two OpenMP pools on the same cores are far slower than one; one thread a core is right here.
export OMP_NUM_THREADS ?= $(shell nproc)
# Threads that wait should not keep a core busy that others share.
export OMP_WAIT_POLICY ?= passive
# Byte code halves the start of every nerfstudio command.
unexport PYTHONDONTWRITEBYTECODE

LIBRARIES := libegl1 libgl1 libusb-1.0-0 libgomp1

.DEFAULT_GOAL := help
.PHONY: help install install-browser quickstart test check clean constraints

help:  ## List the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | \
		awk -F'|' '{ printf "  make %-18s %s\n", $$1, $$2 }'
	@for file in bench/*.py; do name=$$(basename $$file .py); grep -q __main__ $$file && \
		printf "  make bench-%-12s %s\n" $$name "$$(sed -n '1s/^"""//p' $$file | sed 's/"""$$//')"; done; true

install: .venv/installed  ## Create .venv with everything pinned, and the system libraries of Open3D

# Debian packages: installed when root, otherwise the line to run is printed.
define apt_install
	@missing=$$(for package in $(1); do dpkg -s $$package >/dev/null 2>&1 || echo $$package; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "Please install the equivalents of: $$missing"; exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Please run, then try again:  sudo apt-get install -y" $$missing; exit 1; fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null
endef

.venv/installed: pyproject.toml constraints.txt overrides.txt
	$(call apt_install,$(LIBRARIES))
	@python3 -c 'import sys, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null || \
		{ echo "Python 3.11 or newer with venv is needed (Debian: apt-get install python3-venv)"; exit 1; }
	test -x $(BIN)/python || python3 -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install -q --python $(BIN)/python --constraint constraints.txt --override overrides.txt \
		open3d-cpu -e '.[dev]'
	@touch $@

install-browser: install
	$(call apt_install,chromium)

# The small CLIPSeg that comes with the project names the things of its own scenes.
MICRO_CLIPSEG := --pipeline.datamanager.features.features clipseg \
	--pipeline.datamanager.features.checkpoint micro-clipseg

quickstart: install  ## Render a scene, train on it, judge it against the truth, draw a picture sheet
	$(BIN)/hiersplat-scene scenes/tabletop.yaml
	$(BIN)/ns-train hiersplat-quickstart --data scenes/tabletop $(MICRO_CLIPSEG)
	run=$$(ls -dt outputs/tabletop/hiersplat-quickstart/*/ | head -1) && run=$${run%/} && \
	$(BIN)/ns-eval --load-config $$run/config.yml --output-path $$run/eval.json && \
	$(BIN)/hiersplat-report $$run

test: install-browser  ## Run every check: ruff, format, import-linter, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -q

bench-%: install
	$(BIN)/python bench/$(subst -,_,$*).py $(ARGS)

constraints: install  ## Write the versions now installed to constraints.txt
	{ echo "# Versions that are tested together; written by \`make constraints\`."; \
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | grep -v "^pip=="; } > constraints.new && mv constraints.new constraints.txt

clean:  ## Remove what was rendered and trained; keep .venv
	rm -rf outputs renders exports scenes/*/ .pytest_cache .ruff_cache .hypothesis
