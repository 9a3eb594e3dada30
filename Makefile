# The two commands are `make demo` and `make test`. Both set up what they need, from a clean checkout on Debian 12
# with Rust, Node and Python; as root or with sudo.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
SEGUE := $(TARGET)/release/segue
TOOLS := $(TARGET)/tools
CONSOLE := control-plane/console
BROWSER := testkit/browser
# What `segue demo` is started with; for example: make demo DEMO="--port 8800 --dir /srv/demo"
DEMO ?=
# How long the soak loads an edge, how long each fuzz target runs, and how long it may take to find a planted bug.
SOAK_SECONDS ?= 600
LIMITS_SECONDS ?= 60
FUZZ_SECONDS ?= 600
PLANTED_SECONDS ?= 300
# How long the jobs' soak kills, and how many songs it uploads meanwhile.
JOBS_SOAK_SECONDS ?= 600
JOBS_SOAK_UPLOADS ?= 200
# The long form of what `make test` asks of the API: seed, examples of each route, and how long it may take.
SCHEMATHESIS_SEED ?= 20261125
SCHEMATHESIS_EXAMPLES ?= 100
SCHEMATHESIS_SECONDS ?= 1800

# What must hold on every database, with and without Redis.
STORES := package(segue-control-plane) | test(/^queue::/)

export PATH := $(PATH):$(TOOLS)/bin:$(HOME)/.cargo/bin

# Tools of cargo's that are built here where the machine has none.
NEXTEST_VERSION := 0.9.143
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
# The compiler that fuzz targets need for their coverage.
FUZZ_TOOLCHAIN := nightly

# Debian packages: to build, to run the demo, to run the tests, to measure, to fuzz.
BUILD_PACKAGES := gcc g++ make cmake pkg-config
DEMO_PACKAGES := $(BUILD_PACKAGES) ffmpeg
POLICY_PACKAGES := rustc-web cargo-web rust-web-src lld-19
# A policy in C, and nginx, which judges a ticket scheme.
AUTHOR_PACKAGES := clang-19 nginx
TEST_PACKAGES := $(DEMO_PACKAGES) curl iproute2 chromium asc-music redis-server mariadb-server openssl systemd python3-venv $(POLICY_PACKAGES) $(AUTHOR_PACKAGES)
BENCH_PACKAGES := $(BUILD_PACKAGES) wrk nginx-extras openssl util-linux
FUZZ_PACKAGES := $(BUILD_PACKAGES) patch xz-utils

.PHONY: help
help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: demo-parts build ## Build and run a whole Segue; ends with a page to open
	exec $(SEGUE) demo $(DEMO)

.PHONY: build
build: console ## Build the command (target/release/segue)
	cargo build --release --locked --workspace --bins

.PHONY: console
console: $(CONSOLE)/node_modules/.built ## Build the web page that the command embeds

# A stamp of its own, since a plain `cargo build` leaves a stand-in for the page.
$(CONSOLE)/node_modules/.built: $(wildcard $(CONSOLE)/*.json $(CONSOLE)/*.ts $(CONSOLE)/*.html) $(shell find $(CONSOLE)/src $(CONSOLE)/public -type f 2>/dev/null)
	cd $(CONSOLE) && npm ci --no-audit --no-fund && npm run build
	touch $@

.PHONY: test
test: test-parts lint console-test python ## Everything: lints, Rust tests, real servers, browser tests
	cd $(BROWSER) && npm ci --no-audit --no-fund
	python3 -B -m unittest discover -s testkit/bench
	SEGUE_TEST_PYTHON=$(PYTHON) cargo nextest run --release --locked --workspace
	testkit/with-redis testkit/with-mariadb cargo nextest run --release --locked --workspace -E '$(STORES)'

# The two pairs of database and Redis that `make test` leaves out: it has SQLite without and MariaDB with.
.PHONY: test-stores
test-stores: test-parts ## The suites of the control plane on SQLite with Redis, and on MariaDB without
	testkit/with-redis cargo nextest run --release --locked --workspace -E '$(STORES)'
	testkit/with-mariadb cargo nextest run --release --locked --workspace -E '$(STORES)'

.PHONY: lint
lint: tools console ## Formatting, clippy, licences
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo deny check bans licenses sources
	@# The bugs that `make fuzz-planted` plants still fit the sources.
	for patch in fuzz/planted/*.patch; do git apply --check "$$patch"; done

.PHONY: console-test
console-test: console
	cd $(CONSOLE) && npm run check && npm test

# cargo-nextest and cargo-deny, built here where the machine has none; without optimisation, which takes longer than they run.
.PHONY: tools
tools:
	@command -v cargo-nextest >/dev/null || cargo install --debug --locked --root $(TOOLS) --version $(NEXTEST_VERSION) cargo-nextest
	@command -v cargo-deny >/dev/null || cargo install --debug --locked --root $(TOOLS) --version $(DENY_VERSION) cargo-deny

# The Python packages that tests need, in a folder of their own.
PYTHON := $(TARGET)/venv/bin/python
$(TARGET)/venv/.made: $(wildcard testkit/python/*.txt)
	python3 -m venv $(TARGET)/venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r testkit/python/requirements.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -r testkit/python/requirements-alone.txt
	touch $@
.PHONY: python
python: $(TARGET)/venv/.made

.PHONY: policies
policies: ## Build the ready-made policies (target/policies/<name>.wasm)
	@deploy/debian-packages $(POLICY_PACKAGES)
	CARGO_TARGET_DIR=$(TARGET) policies/build

.PHONY: bench
bench: bench-parts build ## Segue beside nginx, in one run; writes docs/performance.md
	cargo build --release --locked -p segue-events --example cost
	cargo build --release --locked -p segue-control-plane --example tally
	python3 testkit/bench/bench.py --segue $(SEGUE) --cost $(TARGET)/release/examples/cost --tally $(TARGET)/release/examples/tally

.PHONY: transcode-bench
transcode-bench: bench-parts demo-parts build ## The transcoder beside plain ffmpeg; writes docs/performance-transcode.md
	cd $(BROWSER) && npm ci --no-audit --no-fund
	python3 testkit/bench/transcode.py --segue $(SEGUE)

.PHONY: limits-proof
limits-proof: test-parts ## Three edges and a real Redis under 20,000 requests/s, eight minutes; writes figures and plot (LIMITS_SECONDS)
	cargo build --release --locked -p segue-proxy --example limits
	python3 -B testkit/limits/proof.py --edge $(TARGET)/release/examples/limits --seconds $(LIMITS_SECONDS)

.PHONY: swaps-proof
swaps-proof: test-parts build ## 200 activations of a policy on three loaded edges, every answer explained, six minutes; writes figures and plot
	cargo build --release --locked -p segue-testkit --bin segue-swaps
	python3 -B testkit/swaps/proof.py --swaps $(TARGET)/release/segue-swaps --segue $(SEGUE)

.PHONY: soak
soak: demo-parts build ## Ten minutes of mixed load on an edge, every byte checked (SOAK_SECONDS)
	cargo run --release --locked -p segue-testkit --bin segue-soak -- --segue $(SEGUE) --seconds $(SOAK_SECONDS)


.PHONY: facts-soak
facts-soak: build ## Ten minutes of players over edges that are killed, every fact checked (SOAK_SECONDS)
	cargo run --release --locked -p segue-testkit --bin segue-facts-soak -- --segue $(SEGUE) --seconds $(SOAK_SECONDS)

.PHONY: jobs-soak
jobs-soak: test-parts ## Two control planes and three workers under kill -9 for ten minutes, on MariaDB (JOBS_SOAK_SECONDS, JOBS_SOAK_UPLOADS)
	SEGUE_JOBS_SOAK_SECONDS=$(JOBS_SOAK_SECONDS) SEGUE_JOBS_SOAK_UPLOADS=$(JOBS_SOAK_UPLOADS) \
	  testkit/with-mariadb cargo test --release --locked -p segue --test it queue:: -- --nocapture

.PHONY: schemathesis
schemathesis: test-parts python ## Every route against the OpenAPI document (SCHEMATHESIS_SEED, SCHEMATHESIS_EXAMPLES, SCHEMATHESIS_SECONDS)
	SEGUE_TEST_PYTHON=$(PYTHON) SEGUE_SCHEMATHESIS_SEED=$(SCHEMATHESIS_SEED) SEGUE_SCHEMATHESIS_EXAMPLES=$(SCHEMATHESIS_EXAMPLES) \
	  SEGUE_SCHEMATHESIS_SECONDS=$(SCHEMATHESIS_SECONDS) \
	  cargo test --release --locked -p segue --test it schemathesis:: -- --nocapture

.PHONY: fuzz fuzz-planted fuzz-tools
fuzz: fuzz-tools ## Every fuzz target for ten minutes on one core (FUZZ_SECONDS)
	fuzz/run $(FUZZ_SECONDS)
fuzz-planted: fuzz-tools ## Show that every fuzz target finds a bug planted for it
	fuzz/prove $(PLANTED_SECONDS)
fuzz-tools:
	@deploy/debian-packages $(FUZZ_PACKAGES)
	@rustup toolchain list | grep -q '^$(FUZZ_TOOLCHAIN)' || rustup toolchain install --profile minimal $(FUZZ_TOOLCHAIN)
	@command -v cargo-fuzz >/dev/null || cargo install --locked --root $(TOOLS) --version $(FUZZ_VERSION) cargo-fuzz

.PHONY: policy-fuzz
policy-fuzz: build ## Ten minutes of uploads that are no policies, to a control plane that runs (FUZZ_SECONDS)
	cargo run --release --locked -p segue-testkit --bin segue-policy-fuzz -- --segue $(SEGUE) --seconds $(FUZZ_SECONDS)

.PHONY: demo-parts test-parts bench-parts
demo-parts:
	@deploy/debian-packages $(DEMO_PACKAGES)
test-parts:
	@deploy/debian-packages $(TEST_PACKAGES)
bench-parts:
	@deploy/debian-packages $(BENCH_PACKAGES)

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(TARGET) $(CONSOLE)/dist $(CONSOLE)/node_modules $(BROWSER)/node_modules
