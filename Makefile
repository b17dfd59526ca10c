# Each target sets up what it needs from a machine with Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-nightly test-fuzz test-lowest coverage lint types bench schema clean

demo: .venv/installed  ## build a 600M-MACs network with weights, export it, name two photographs
	HF_HUB_OFFLINE=1 $(BIN)/scalenet-zoo build --flops 600M --family efficientnet_lite --pretrained --export onnx --output demo
	$(BIN)/scalenet-zoo predict --model demo/efficientnet_lite_600m.onnx --top 1

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test: .venv/installed  ## the tests that need no GPU and little time, a process a core
	$(PYTEST)

test-slow: .venv/installed  ## those that take longer, or several processes; .ci/run has the time for them
	$(PYTEST) -m "(slow or distributed) and not nightly and not gpu"

test-nightly: .venv/installed  ## those that take longest, one after the other
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "nightly and not gpu"

coverage: .venv/installed  ## the lines and branches that `make test` runs; a page in build/coverage/html
	mkdir -p build/coverage
	$(PYTEST) --cov --cov-report=term --cov-report=html

test-fuzz: .venv/installed  ## every reader of files, given damaged ones by the thousand
	$(PYTEST) -m fuzz

test-lowest: .venv-lowest/installed  ## the tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest --numprocesses auto --dist worksteal

lint: .venv/installed build/house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/house && $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml --no-cache --no-logo

types: .venv/installed build/house
	MYPYPATH=build/house $(BIN)/mypy -p scalenet_zoo -p tests -p benchmarks -p tools

.PHONY: build/house
build/house:  ## the package as it is installed, export/ and searched_archs/ inside it: linters read no setuptools mapping
	rm -rf $@ && mkdir -p $@/scalenet_zoo
	ln -s $(CURDIR)/scalenet_zoo/* $(CURDIR)/export $(CURDIR)/searched_archs $@/scalenet_zoo

bench: .venv/installed  ## the benchmarks of up to ten minutes each; results in benchmarks/results (latency_model takes half an hour)
	for name in cli_start population_cost efficientnet_b0 export_speed per_mac evaluate_speed supernet_speed scalenas_speed scoring_speed tiled per_mac_dense; do $(BIN)/python -m benchmarks.$$name || exit 1; done

schema: .venv/installed  ## write the JSON Schemas of the file formats anew
	$(BIN)/python -c 'from scalenet_zoo.arch.schemas import write_schemas; write_schemas()'

clean:
	rm -rf .venv .venv-lowest build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@
