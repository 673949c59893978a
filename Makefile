# Short names for what CMake presets and ./check do.
PRESET ?= dev
CLANG_FORMAT ?= clang-format-14

.PHONY: help build check test san bench format clean

help:
	@echo 'make build   build the preset dev (PRESET=fast for the optimised one)'
	@echo 'make test    build and run its tests'
	@echo 'make check   everything: all builds, tests and gates'
	@echo 'make san     build and test under the sanitizers'
	@echo 'make bench   build optimised and time the kernels'
	@echo 'make format  lay out the sources with clang-format 14'
	@echo 'make clean   remove build/'

build:
	cmake --preset $(PRESET)
	cmake --build --preset $(PRESET)

test: build
	ctest --preset $(PRESET)

check:
	./check

san:
	$(MAKE) test PRESET=asan
	$(MAKE) test PRESET=tsan

bench:
	$(MAKE) build PRESET=fast
	build/fast/tests/attncheck bench

format:
	$(CLANG_FORMAT) -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf build
