# `make` lists the targets. Variables: FLOW, KAFKA=real, PROFILE, KAFKA_PORT, REGISTRY_PORT, POSTGRES_PORT, ARGS (passed on to
# what runs), CARGO_FLAGS, CARGO_TARGET_DIR (default: a cache outside the clone, shared by all clones).
SHELL := bash
.DEFAULT_GOAL := help
.SUFFIXES:

export CARGO_TARGET_DIR ?= $(HOME)/.cache/thalweg/target
export PATH := $(PATH):$(HOME)/.cargo/bin:$(or $(THALWEG_CACHE),$(HOME)/.cache/thalweg)/typos/bin

# How `run` and `thalweg` are built: `quick` takes half as long; PROFILE=release is for use, and what `bench` measures.
PROFILE ?= quick
# What is tested and checked: all that there is.
ALL = --features thalweg/object-store,thalweg/postgres,thalweg/protobuf,thalweg/json-schema
# Most tests wait for a broker, a process or a clock, and not for a core.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
# What `run` shows: one of dataflows/examples, a query of NEXMark such as q5, or merchant_spend.
FLOW ?= merchant_spend
DEMO = $(if $(filter merchant_spend,$(FLOW)),-p dataflows --bin thalweg -- demo,$(strip \
	$(if $(wildcard dataflows/examples/$(FLOW).rs),-p dataflows --example $(FLOW) -- demo,$(strip \
	-p nexmark --bin nexmark -- demo $(FLOW)))))
KAFKA_PORT ?= 9092
POSTGRES_PORT ?= 5433
REGISTRY_PORT ?= 8081
KAFKA_UP = scripts/kafka.sh up --port $(KAFKA_PORT)
REGISTRY_UP = scripts/registry.sh up --port $(REGISTRY_PORT)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: # what a build needs; prints nothing where it is there
	@scripts/setup.sh build

.PHONY: run
ifeq ($(KAFKA),real)
run: setup ## run a demo in one process; FLOW=fraud: another one (docs/examples.md); KAFKA=real: on Apache Kafka and a schema registry
	@kafka=$$($(KAFKA_UP)) && registry=$$($(REGISTRY_UP)) && set -x && \
	exec cargo run --profile $(PROFILE) $(CARGO_FLAGS) $(DEMO) --kafka "$$kafka" --registry "$$registry" $(ARGS)
else
run: setup
	cargo run --profile $(PROFILE) $(CARGO_FLAGS) $(DEMO) $(ARGS)
endif

.PHONY: thalweg
thalweg: setup ## run the command line: ARGS='query merchant_spend limit=3'
	@cargo run --profile $(PROFILE) --quiet $(CARGO_FLAGS) -p dataflows --bin thalweg -- $(ARGS)

.PHONY: test
test: ## run all tests: units, models, documentation, and those on a real Kafka, registry, object store and database
	@scripts/setup.sh build java postgres
	@scripts/kafka.sh fetch >/dev/null
	@scripts/registry.sh fetch >/dev/null
	@scripts/s3.sh fetch >/dev/null
	@scripts/debezium.sh fetch >/dev/null
	@scripts/duckdb.sh fetch >/dev/null
	cargo test --workspace $(ALL) --no-fail-fast $(CARGO_FLAGS) $(ARGS)

.PHONY: proof
proof: ## run what `test` leaves out as it takes minutes: a million records on a real Kafka, row by row
	@scripts/setup.sh build java
	@scripts/kafka.sh fetch >/dev/null
	@scripts/registry.sh fetch >/dev/null
	cargo test --test it $(ALL) $(CARGO_FLAGS) $(ARGS) -- --ignored kafka::exact

CYCLES ?= 40
.PHONY: cluster-faults
cluster-faults: ## kill and stop processes of a cluster at random; CYCLES=40 times unless said otherwise
	@scripts/setup.sh build java
	@scripts/kafka.sh fetch >/dev/null
	CYCLES=$(CYCLES) cargo test --test it $(ALL) $(CARGO_FLAGS) $(ARGS) -- cluster::faults --nocapture

SEED ?= 1
REPORT ?= docs/reports/kill-matrix.md
.PHONY: kill-matrix
kill-matrix: ## kill processes, brokers and databases under load; CYCLES=40 times, and writes docs/reports/kill-matrix.md
	@scripts/setup.sh build java postgres
	@scripts/kafka.sh fetch >/dev/null
	@scripts/registry.sh fetch >/dev/null
	@mkdir -p $(dir $(REPORT))
	cargo test --workspace $(ALL) $(CARGO_FLAGS) --test kill_matrix -- --cycles $(CYCLES) --seed $(SEED) --report $(REPORT) $(ARGS)

.PHONY: mutants
mutants: ## break the rules that exactly-once rests on, one by one, and see the tests fail; ARGS=no-fsync: only that one
	@scripts/setup.sh build java postgres
	@scripts/mutants.sh $(ARGS)

# A range is worth an optimised build; one seed, to look into, is not.
SEEDS ?= 0..10000
.PHONY: sim
sim: setup ## run the simulator; SEEDS=0..10000 unless said otherwise, SEEDS=17 tells the story of that one
	SEEDS=$(SEEDS) cargo test --lib $(if $(findstring ..,$(SEEDS)),--release) $(CARGO_FLAGS) sim::seeds -- --nocapture

.PHONY: check
check: setup ## check format, lints and documentation; scripts and spelling where shellcheck and typos are there
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(ALL) $(CARGO_FLAGS) -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --lib --no-deps $(ALL) $(CARGO_FLAGS)
	@for script in scripts/*.sh .ci/run; do bash -n "$$script" || exit 1; done
	@if command -v shellcheck >/dev/null; then shellcheck -x scripts/*.sh .ci/run; \
	else echo "scripts: parsed only; for more: scripts/setup.sh lint"; fi
	@if command -v typos >/dev/null; then typos; else echo "spelling: not checked; for that: scripts/setup.sh lint"; fi

.PHONY: postgres-up
postgres-up: ## start Postgres on 127.0.0.1
	@scripts/postgres.sh up --port $(POSTGRES_PORT)

.PHONY: postgres-down
postgres-down: ## stop it; its data stay (scripts/postgres.sh down --wipe removes them)
	@scripts/postgres.sh down --port $(POSTGRES_PORT)

.PHONY: bench
bench: setup ## measure; ARGS="--help" lists the questions
	cargo run --release $(CARGO_FLAGS) -p bench -- $(ARGS)

.PHONY: kafka-up
kafka-up: ## start Apache Kafka and the schema registry on 127.0.0.1
	@$(KAFKA_UP)
	@$(REGISTRY_UP)

.PHONY: kafka-down
kafka-down: ## stop them; their data stay (scripts/kafka.sh down --wipe removes them)
	@scripts/registry.sh down --port $(REGISTRY_PORT)
	@scripts/kafka.sh down --port $(KAFKA_PORT)
