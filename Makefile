# The commands of the project. They need a Rust toolchain and a C++ compiler; `make test`, `make chaos` and `make bench`
# also start real Kafka and PostgreSQL by themselves, the tests S3 too (tests/services), with Python.
# Everything is built with `--workspace`: a part alone would select other features of the
# dependencies and build them a second time.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help instructions demo test compose-test dashboard-test failover image model sim matrix mutants fuzz chaos lint bench profile fmt services install-services install-peers clean-services toolchain with-python

export CARGO_TARGET_DIR ?= $(CURDIR)/target

# Each checkout has services of its own, on the first free ports.
services_dir := $(CURDIR)/target/services
services := tests/services/services --dir $(services_dir) --offset auto
bench_services := tests/services/services --dir $(services_dir)-bench --offset auto

# What the tests talk to; give ARGS to `make test` for a filter.
SERVICES ?= kafka postgres s3
ARGS ?=

# Which seeds `make sim` runs, and how many at a time. The simulator is optimised, for it is several times as fast then
# and shares what it needs with `make bench`; SIM_PROFILE=dev takes the one of `make test`.
SEEDS ?= 2000
FIRST_SEED ?= 1
SIM_JOBS ?= 2
SIM_PROFILE ?= release
sim_build := cargo build --workspace --locked --profile $(SIM_PROFILE) --bin millstream-sim
sim_program = "$(CARGO_TARGET_DIR)/$(if $(filter dev,$(SIM_PROFILE)),debug,$(SIM_PROFILE))/millstream-sim"

# How long `make fuzz` feeds each of its targets.
SECONDS ?= 60
TARGETS ?= json csv sql

# How long `make chaos` injects faults.
MINUTES ?= 3

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

demo: toolchain ## the first minute: clicks to counts, with a worker killed on the way
	cargo build --workspace --locked
	"$(CARGO_TARGET_DIR)/debug/millstream" demo

test: with-python ## all tests, against real services that are started and stopped around them
	python3 -B -m unittest discover -s tests/services -p '*_test.py'
	$(services) run $(SERVICES) --fresh -- cargo test --workspace --locked --no-fail-fast $(ARGS)

compose-test: toolchain ## the stack of docker-compose.yml with containers killed; installs an engine where there is none
	tests/compose/run $(ARGS)

dashboard-test: toolchain ## every page of the dashboard in headless Chromium; installs one where there is none
	tests/dashboard/run $(ARGS)

failover: ## a failover on the stack of docker-compose.yml, told while it happens
	deploy/demo/failover.sh

image: ## the image of docker-compose.yml, compiled from this checkout in a container; CI does not
	docker compose build

model: toolchain ## check the protocol exhaustively, and that planted mistakes are found
	cargo build --workspace --locked --bin millstream-model
	"$(CARGO_TARGET_DIR)/debug/millstream-model" $(ARGS)

sim: toolchain ## the real cluster on simulated hosts; SEEDS=2000 FIRST_SEED=1 chooses
	$(sim_build)
	$(sim_program) --seeds $(SEEDS) --first-seed $(FIRST_SEED) --jobs $(SIM_JOBS)
	$(sim_program) blocked --hours 3

matrix: toolchain ## the same, broken off before, in and after each step of the protocol
	$(sim_build)
	$(sim_program) matrix --jobs $(SIM_JOBS)

mutants: toolchain ## plant known mistakes one by one: how many seeds until each is found
	$(sim_build) --features millstream-sim/mutants
	$(sim_program) mutants --seeds $(SEEDS) --first-seed $(FIRST_SEED) --jobs $(SIM_JOBS) $(ARGS)

fuzz: toolchain ## feed decoders and the SQL front end with what libFuzzer makes up, SECONDS=60 each; TARGETS=json chooses
	RUSTC_WORKSPACE_WRAPPER="$(CURDIR)/tests/fuzz/instrument" \
		cargo build --workspace --locked --bin millstream-fuzz --features millstream-fuzz/engine
	tests/fuzz/run $(SECONDS) $(TARGETS)

chaos: with-python ## everything dies in turn, on real services, while sinks are read; MINUTES=10 chooses
	cargo build --workspace --locked --bins
	"$(CARGO_TARGET_DIR)/debug/millstream-chaos" --minutes $(MINUTES) $(ARGS)

lint: toolchain ## formatting and clippy; any warning fails
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: with-python ## throughput as a ratio to a raw consumer and beside installed peers, on an optimised broker
	cargo build --workspace --release --locked
	MILLSTREAM_KAFKA_JVM="-Xmx2g -XX:TieredStopAtLevel=4" $(bench_services) \
		run kafka postgres --fresh -- "$(CARGO_TARGET_DIR)/release/millstream-bench" $(ARGS)

install-peers: with-python ## the engines that `make bench` runs beside, by mvn and pip; ARGS=flink chooses
	tests/bench/peers/install $(ARGS)

instructions: toolchain ## instructions a row of the pure parts, within 5 % of what they were; ARGS=--accept takes them as they are
	cargo build --workspace --release --locked
	"$(CARGO_TARGET_DIR)/release/millstream-bench" instructions $(ARGS)

profile: with-python ## a flame graph of the worker while it runs a query; ARGS='--query windows --out FILE' chooses
	cargo build --workspace --release --locked
	MILLSTREAM_KAFKA_JVM="-Xmx2g -XX:TieredStopAtLevel=4" $(bench_services) \
		run kafka postgres --fresh -- "$(CARGO_TARGET_DIR)/release/millstream-bench" profile $(ARGS)

fmt: ## format the code
	cargo fmt --all

services: with-python ## start the services and keep them running, also over `make test`
	$(services) up $(SERVICES)
	@echo 'Their addresses: eval "$$($(services) env)"'

install-services: with-python ## only download and build what the services need
	$(services) install $(SERVICES)

clean-services: with-python ## stop the services and delete their data
	$(services) down all --wipe
	$(bench_services) down all --wipe

toolchain:
	@.ci/toolchain

# It runs the services.
with-python:
	@.ci/toolchain python3
