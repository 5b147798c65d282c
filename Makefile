# The commands of Mobius. `make demo` and `make test` install, build and run all they need.

CONFIG ?= configs/embedded.json
PRESET ?= release
JOBS ?= $(shell nproc)
BUILD := build/$(PRESET)
MODEL := models/cache/tiny
SINCE ?=
SOURCES = $(shell git ls-files '*.h' '*.cc' '*.cu' '*.cuh')

.PHONY: help configure server build demo serve test check-format lint format bench clean

help:
	@echo "make demo               answer a question about a long document, start to end"
	@echo "make serve CONFIG=FILE  run the server until Ctrl-C (default $(CONFIG))"
	@echo "make test               build and run all tests (PRESET=release, debug or tsan)"
	@echo "make lint               formatting and static checks (SINCE=COMMIT: of what changed since)"
	@echo "make bench              the benchmarks of this machine, results in tests/bench/results/"

configure:
	@docker/install-dependencies.sh build
	@[ -f $(BUILD)/build.ninja ] || cmake --preset $(PRESET)

# What a user runs: no tests, no benchmarks.
server: configure
	@cmake --build $(BUILD) -j $(JOBS) --target mobius mobius-make-checkpoint

build: configure
	@cmake --build $(BUILD) -j $(JOBS)

# The stand-in model: random weights from a seed, in the shape of a small Llama.
$(MODEL)/config.json: | server
	@$(BUILD)/models/mobius-make-checkpoint --shape tiny --seed 1 --out $(MODEL)

demo: server $(MODEL)/config.json
	@python3 tests/demo/demo.py --mobius $(BUILD)/server/mobius --config $(CONFIG)

serve: server $(MODEL)/config.json
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

clean:
	rm -rf build
