# The commands of Mobius. `make demo` and `make test` install, build and run all they need.

CONFIG ?= configs/embedded.json
PRESET ?= release
JOBS ?= $(shell nproc)
BUILD := build/$(PRESET)
SINCE ?=
SOURCES = $(shell git ls-files '*.h' '*.cc' '*.cu' '*.cuh')

.PHONY: help configure server build demo serve test check-format lint format bench quality clean

help:
	@echo "make demo               answer a question about a long document, start to end"
	@echo "make serve CONFIG=FILE  run the server until Ctrl-C (default $(CONFIG))"
	@echo "make test               build and run all tests (PRESET=release, debug or tsan)"
	@echo "make lint               formatting and static checks (SINCE=COMMIT: of what changed since)"
	@echo "make bench              the benchmarks of this machine, results in tests/bench/results/"
	@echo "make quality            what the model of CONFIG finds in long documents, full and MoBA; build/quality/"

configure:
	@docker/install-dependencies.sh build
	@[ -f $(BUILD)/build.ninja ] || cmake --preset $(PRESET)

# What a user runs: no tests, no benchmarks.
server: configure
	@cmake --build $(BUILD) -j $(JOBS) --target mobius

build: configure
	@cmake --build $(BUILD) -j $(JOBS)

demo: server
	@python3 tests/demo/demo.py --mobius $(BUILD)/server/mobius --config $(CONFIG)

serve: server
	@exec $(BUILD)/server/mobius --config $(CONFIG)

test:
	@docker/install-dependencies.sh build test
	@$(MAKE) --no-print-directory build
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

check-format:
	@docker/install-dependencies.sh lint
	@clang-format-14 --dry-run -Werror $(SOURCES)

lint: check-format
	@docker/install-dependencies.sh build
	@tests/lint.sh $(BUILD) $(SINCE)

format:
	@docker/install-dependencies.sh lint
	@clang-format-14 -i $(SOURCES)

bench: build
	@tests/bench/run_cpu.sh $(BUILD)

quality: build
	@tests/quality/run.sh --config $(CONFIG) --lengths 4096,8192,16384 --modes full:full,moba:moba --blocks 256/8 --out build/quality

clean:
	rm -rf build
