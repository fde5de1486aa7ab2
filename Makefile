# Everything is done from here; `make` alone says what there is. Needs Python >= 3.11 with venv, and nothing else.
#
# `make venv` runs once and again only when pyproject.toml changes; every other target asks for it first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SEEDS  ?= 0:2000
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test check format bench bench-quick bench-peers sim gray soak fuzz clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## create .venv with the project (editable) and everything needed to work on it

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; say: make venv PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python3-venv is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) (about half a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,dns,mdns,dev]'
	@touch $@

demo: $(STAMP)  ## workers that share state, live in the terminal and in the browser
	$(BIN)/python -m examples.demo $(ARGS)

# A file stays in one process, since its tests may share what took long to make; in their order, so that the long ones
# are not left to the end.
test: $(STAMP)  ## every test, a file on each core, the slowest named at the end; ARGS="-k name -x" narrows it
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP)  ## lint, format and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict crdt discovery gossip

format: $(STAMP)  ## put every file into the one format, and fix what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## every question of benchmarks/, beside whatever peers are installed; ARGS="--only local visible" asks some
	@$(BIN)/python -c 'import diskcache, grpc, gunicorn.dirty, hiredis, nats, pysyncobj, redis' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary grpcio,hiredis,pylibmc --editable '.[bench]' || true
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick:  ## the same in two or three minutes, too short for figures to quote: benchmarks/results/quick
	@$(MAKE) --no-print-directory bench ARGS="--quick $(ARGS)"

bench-peers:  ## what is measured beside us: the servers, for root on Debian, and the programs that have a toolchain here
	@if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends redis-server memcached nats-server etcd-server; \
	else echo "no servers: apt-get is for root on Debian; elsewhere install redis-server, memcached, nats-server and etcd: what is not there is skipped" >&2; fi
	@sh benchmarks/peers/build.sh

soak: $(STAMP)  ## what takes long: hundreds of kills, every crash of the disk, broken and slow networks, a large cluster at rest, properties searched anew
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --timeout 3600 tests/integration/test_disk.py tests/storage tests/crdt tests/protocol/test_comings.py tests/node/test_lives.py tests/integration/test_partitions.py tests/integration/test_slow.py tests/integration/test_quiet.py $(ARGS)

sim: $(STAMP)  ## thousands of simulated clusters; SEEDS=7 replays one, SEEDS=0:2000 is the default range
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

gray: $(STAMP)  ## a hundred simulated node-hours, one node of ten gray: is ever a healthy one called dead?
	$(BIN)/python -m tests.simulation --hours 1 --seeds 0:10 $(ARGS)

fuzz: $(STAMP)  ## a million packets, files and requests that nobody would write; ARGS="messages --runs 5000" runs one target
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary atheris --editable '.[fuzz]' || true
	$(BIN)/python -m tests.fuzz $(ARGS)

clean:  ## remove what was made here, .venv included
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/peers/build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
