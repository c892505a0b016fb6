# The same targets run by hand and in CI. `make demo` and `make test` set up all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PIP := $(INSTALL) -c constraints.txt
SOURCES := pyproject.toml constraints.txt
# All that the demo installs, with hashes; `make demo LOCK=` installs by constraints.txt instead.
LOCK ?= requirements-demo.txt
# Files of tests side by side, one more than there are cores, since tests often wait for processes;
# tests of a file share what they set up.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# What the packages of the extras can do, and what torchvision beside transformers may change.
EXTRAS_TESTS := $(addprefix models/test_,openclip openclip_files timm library_revisions families \
	hub_preprocessing) bulk/test_bulk_ray bulk/test_bulk_buckets test_s3 images/test_collections \
	adapters/test_dataset_columns
# What a wheel is tested by: the core, and the README's commands and Python.
WHEEL_TESTS := $(addprefix tests/metrics/test_metrics_,exact.py golden.py calibration.py inputs.py registered.py) \
	tests/scores/test_prototypes.py tests/calibration tests/test_docs.py -k 'not test_snippets_run or README'

.PHONY: help demo lock test docs browser lint types format coverage extras package oldest newest results clean

help: ## Say what can be made.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo ## Do the whole job on built-in photographs (installs no torch).
	$(BIN)/trustvlm demo --out demo-output

lock: $(BIN)/python ## Renew requirements-demo.txt, the versions and hashes of all that the demo installs.
	$(PIP) uv
	printf 'hatchling\nhatch-fancy-pypi-readme\neditables\n' | $(BIN)/uv pip compile pyproject.toml - --extra demo -c constraints.txt \
		--universal --python-version 3.11 --generate-hashes --no-annotate --upgrade --quiet \
		--custom-compile-command 'make lock' --output-file requirements-demo.txt

test: $(VENV)/.test ## Run all tests and doctests; OPTIONS are pytest's.
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(OPTIONS)

docs: $(VENV)/.docs ## Build the documentation site into build/site, strictly, and check its links and names.
	rm -rf build/site
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --jobs auto -c docs -d build/doctrees . build/site
	TRUSTVLM_SITE=build/site $(BIN)/python -m pytest tests/test_site.py

browser: $(VENV)/.browser ## Test the pages in Chromium, which must be installed; those of `make docs`, too.
	TRUSTVLM_SITE=$(wildcard build/site) $(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/browser

coverage: ## Run the tests and show which lines they reach.
	$(MAKE) test OPTIONS='--cov --cov-report=term-missing:skip-covered'

lint: $(VENV)/.lint ## Check style.
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.lint $(VENV)/.test ## Check types, strictly.
	$(BIN)/mypy

format: $(VENV)/.lint ## Put the code into shape.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

extras: $(VENV)-extras/.done ## Test open_clip, timm (which need torchvision), Ray, S3 and datasets, apart from the rest.
	$(VENV)-extras/bin/python -m pytest $(SIDE_BY_SIDE) $(addprefix tests/,$(addsuffix .py,$(EXTRAS_TESTS)))

package: $(VENV)/.package ## Build the sdist and the wheel, check them, and test the wheel where nothing else is.
	rm -rf dist build/sdist $(VENV)-wheel
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	mkdir -p build/sdist && tar -xzf dist/trustvlm-*.tar.gz -C build/sdist --strip-components 1
	TRUSTVLM_DIST=dist $(BIN)/python -m pytest tests/test_package.py
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		"$$(echo dist/trustvlm-*.whl)[demo,pandas]" pytest pytest-xdist hypothesis scikit-learn
	cd build/sdist && ../../$(VENV)-wheel/bin/python -c 'import trustvlm; assert "site-packages" in trustvlm.__file__'
	cd build/sdist && ../../$(VENV)-wheel/bin/python -m pytest $(SIDE_BY_SIDE) $(WHEEL_TESTS)
	$(VENV)-wheel/bin/trustvlm demo --out build/sdist/demo-output

oldest: $(VENV)-oldest/.done ## Test with the oldest versions that pyproject.toml allows; OPTIONS are pytest's.
	$(VENV)-oldest/bin/python -m pytest $(SIDE_BY_SIDE) -W default $(OPTIONS)

newest: $(VENV)-newest/.done ## Test with the newest versions that there are; OPTIONS are pytest's.
	$(VENV)-newest/bin/python -m pytest $(SIDE_BY_SIDE) $(OPTIONS)

# Folders of embeddings: of real CLIP models, and of the offline models.
CLIP ?= ../shared/embeddings_clip
STANDINS ?= ../shared/embeddings

results: $(VENV)/.test ## Make docs/results.md and the README's table and figure anew, from embeddings.
	$(BIN)/python benchmarks/publish_results.py $(CLIP) $(STANDINS)

clean: ## Remove environments and outputs.
	rm -rf $(VENV) $(VENV)-extras $(VENV)-wheel $(VENV)-oldest $(VENV)-newest build dist demo-output docs/reference/generated .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

# torch stands on every line that could otherwise pull an unpinned one.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trustvlm needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

# The hashes are for CPython 3.11 to 3.13, on any system. The project is built by what they cover, too.
$(VENV)/.demo: $(SOURCES) $(LOCK) | $(BIN)/python
	if [ -n "$(LOCK)" ] && $(BIN)/python -c 'import sys; sys.exit(sys.implementation.name != "cpython" or sys.version_info >= (3, 14))'; then \
		$(INSTALL) --require-hashes -r $(LOCK) && $(INSTALL) --no-deps --no-build-isolation -e . || \
		{ echo "Installing by the hashes of $(LOCK) failed. Without them: make demo LOCK="; exit 1; }; \
	else $(PIP) -e '.[demo]'; fi
	touch $@

$(VENV)/.test: $(SOURCES) | $(BIN)/python
	$(PIP) 'torch==2.13.0' -e '.[test,torch,torchmetrics]'
	touch $@ $(VENV)/.demo

$(VENV)/.browser: $(VENV)/.test
	$(PIP) -e '.[browser]'
	touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) 'torch==2.13.0' -e '.[docs]'
	touch $@

$(VENV)/.package: $(VENV)/.test
	$(PIP) build twine
	touch $@

$(VENV)/.lint: $(SOURCES) | $(BIN)/python
	$(PIP) -e '.[lint]'
	touch $@

$(VENV)-extras/.done: $(SOURCES)
	$(PYTHON) -m venv $(VENV)-extras
	$(VENV)-extras/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		'torch==2.13.0' -e '.[test,torch,openclip,timm,ray,s3-server,datasets]'
	touch $@

# torch comes first and without what it needs, so that nothing is there before the versions are chosen.
$(VENV)-oldest/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'torch==2.13.0'
	$(VENV)-oldest/bin/uv pip install --quiet --python $(VENV)-oldest/bin/python --resolution lowest-direct \
		'torch==2.13.0' -e '.[test,torch,torchmetrics]'
	touch $@

$(VENV)-newest/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
		'torch==2.13.0' -e '.[test,torch,torchmetrics]'
	touch $@
