# Each target installs what it needs. It requires Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo docs package test test-slow test-nightly test-fuzz test-lowest coverage lint types bench schema clean

demo: .venv/installed  ## build a 600M-MACs network with weights, export it, name two photographs
	HF_HUB_OFFLINE=1 $(BIN)/scalenet-zoo build --flops 600M --family efficientnet_lite --pretrained --export onnx --output demo
	$(BIN)/scalenet-zoo predict --model demo/efficientnet_lite_600m.onnx --top 1

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test: .venv/installed  ## the fast tests, which need no GPU; one process per core
	$(PYTEST)

test-slow: .venv/installed  ## the tests that take longer or need several processes; .ci/run includes them
	$(PYTEST) -m "(slow or distributed) and not nightly and not gpu"

test-nightly: .venv/installed  ## the longest tests, one after the other
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "nightly and not gpu"

coverage: .venv/installed  ## the lines and branches that `make test` covers; a page in build/coverage/html
	mkdir -p build/coverage
	$(PYTEST) --cov --cov-report=term --cov-report=html

test-fuzz: .venv/installed  ## every reader of files, tested with damaged files by the thousand
	$(PYTEST) -m fuzz

test-lowest: .venv-lowest/installed  ## the tests with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest --numprocesses auto --dist worksteal

lint: .venv/installed build/house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd build/house && $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml --no-cache --no-logo

types: .venv/installed build/house
	MYPYPATH=build/house $(BIN)/mypy -p scalenet_zoo -p tests -p benchmarks -p tools

docs: .venv/installed build/house  ## the documentation site in site/: strict, offline
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

package: .venv/installed  ## the sdist and the wheel in dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

.PHONY: build/house
build/house:  ## the package as installed, with export/ and searched_archs/ inside: linters do not read the setuptools mapping
	rm -rf $@ && mkdir -p $@/scalenet_zoo
	ln -s $(CURDIR)/scalenet_zoo/* $(CURDIR)/export $(CURDIR)/searched_archs $@/scalenet_zoo

bench: .venv/installed  ## the benchmarks of up to ten minutes each; results in benchmarks/results (latency_model takes half an hour)
	for name in cli_start population_cost efficientnet_b0 export_speed per_mac evaluate_speed supernet_speed scalenas_speed scoring_speed tiled per_mac_dense; do $(BIN)/python -m benchmarks.$$name || exit 1; done

schema: .venv/installed  ## write the JSON Schemas of the file formats again
	$(BIN)/python -c 'from scalenet_zoo.arch.schemas import write_schemas; write_schemas()'

clean:
	rm -rf .venv .venv-lowest build dist demo site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@
