# The two commands of a newcomer: `make study` and `make test`. Each makes the environment first; `make env` makes it alone.
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: study env baseline test check format docs mlflow ui requirements clean

study: .venv/installed
	l2s study

env: .venv/installed

# The default study of the last commit in a fresh clone; what of it is committed is brought here.
baseline: export PYTHONPATH := $(CURDIR)/.work/baseline
baseline: .venv/installed
	rm -rf .work/baseline
	git clone --quiet . .work/baseline
	cd .work/baseline && l2s study
	cp .work/baseline/dvc.lock dvc.lock
	mkdir -p report/emblems && cp .work/baseline/report/emblems/metrics.json report/emblems/
	rm -rf .work/baseline

# Two files of tests at a time; what a file made is shared by its tests.
test: .venv/installed
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: export NO_MKDOCS_2_WARNING=1
check: .venv/installed
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	mkdocs build --quiet --strict
	pytest --cov --cov-report=term-missing:skip-covered

format: .venv/installed
	ruff format .
	ruff check --fix .

# The site of docs/ in .work/site, for index.html in a browser; no network is needed.
docs: export NO_MKDOCS_2_WARNING=1
docs: .venv/installed
	mkdocs build --strict

mlflow: .venv/installed
	l2s mlflow

ui: mlflow  # the name of before, for a release

.venv/installed: .venv/packages pyproject.toml
	.venv/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv/packages: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.txt
	touch $@

# Pin what pyproject.toml asks for, by version and hash; what is pinned already stays.
requirements:
	uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header pyproject.toml --output-file requirements.txt

clean:
	rm -rf .work data models embeddings results report/parts report/*/index.html report/*/accuracy.csv mlflow.db* mlartifacts
