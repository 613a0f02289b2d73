# SPDX-License-Identifier: Apache-2.0
# make storm ARGS="…"   the main job: build in release mode, run the fault storm
# make test             every test
# make bench            figures beside their goals and beside peers, measured in one run
# make mutants          seeded mutations of the page walker, each of which the differential must catch
# make build | lint | format | clean

RUN_PACKAGES = ca-certificates curl git libnghttp2-dev=1.52.0-1+deb12u3 pkg-config
TEST_PACKAGES = $(RUN_PACKAGES) python3 python3-venv
BENCH_PACKAGES = $(TEST_PACKAGES) nghttp2-client nghttp2-server valgrind
SWIFT_SOURCES = Package.swift $(wildcard Sources Tests Benchmarks)

storm: build
	@.build/release/iommulab storm $(ARGS)

build: toolchain
	@scripts/install-packages $(RUN_PACKAGES)
	@scripts/build-release iommulab

test: toolchain
	@scripts/install-packages $(TEST_PACKAGES)
	@scripts/python-environment
	@scripts/test

bench: toolchain
	@scripts/install-packages $(BENCH_PACKAGES)
	@scripts/build-release iommulab
	@scripts/build-release MachineBench
	@scripts/build-release CountedService
	@python3 Benchmarks/bench.py --binary .build/release/iommulab --machine-bench .build/release/MachineBench \
	  --counted-service .build/release/CountedService $(ARGS)

mutants: toolchain
	@scripts/install-packages $(TEST_PACKAGES)
	@scripts/python-environment
	@.venv/bin/python Tests/differential/mutants.py $(ARGS)

lint: toolchain
	@swift format lint --strict --parallel --recursive $(SWIFT_SOURCES)

format: toolchain
	@swift format --in-place --parallel --recursive $(SWIFT_SOURCES)

clean:
	rm -rf .build .venv

toolchain:
	@scripts/check-toolchain

.PHONY: storm build test bench mutants lint format clean toolchain
