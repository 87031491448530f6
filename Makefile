# Verbs of lusbook. Each one first sees to the environment in .venv; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
CORES ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PRESET ?= demo
NAME ?=
KERNEL ?= python3
KERNEL_AT ?= --user
WITHOUT_GPU ?=
PARAMS ?=
BOOK ?= .
BENCHMARKS ?= sifa unet data_path inference metrics phantom demo plain_sifa fans scaling many_runs
TORCH_PYTHON ?=
RUNS ?= 100000
N ?= 1
SECONDS ?= 36000
READERS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CHAPTERS := $(sort $(basename $(notdir $(wildcard book/*.ipynb))))
BUILD := $(BIN)/jupyter-book build --all -n -W --keep-going
# What a committed chapter loses: papermill's timing and the interpreter's version. Outputs stay, and so do the
# execution counts: papermill makes them 1, 2, 3, ..., and nbval fails on a cell that has an output but no count.
STRIP := $(BIN)/nbstripout --keep-output --keep-count --keep-id --extra-keys \
	"metadata.papermill metadata.language_info.version cell.metadata.papermill cell.metadata.execution"

# Programs that start others (papermill its kernel, the study its runs) find them in the environment.
export PATH := $(abspath $(BIN)):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONUNBUFFERED = 1

step = @printf '\n== %s ==\n'

.DEFAULT_GOAL := help
.PHONY: help env kernel book site pdf test test-all fingerprints verify chapter results bench screenshots slurm links fuzz mutants audit format strip requirements clean name-of-chapter

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## make the environment in .venv (PYTHON=python3.12 picks another Python)

# pip compiles what it installs to bytecode; uv does so only when asked. Without bytecode, every start that
# imports TensorFlow takes 10 s longer wherever Python may not write it.
$(STAMP): requirements.txt pyproject.toml
	$(step) 'environment in $(VENV)'
	@command -v $(PYTHON) >/dev/null || { echo 'lusbook needs Python 3.11, 3.12 or 3.13; there is no $(PYTHON) here. Name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v[:2] <= (3, 13) or sys.exit(f"lusbook needs Python 3.11, 3.12 or 3.13; $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@if command -v uv >/dev/null; then \
		set -x; \
		uv pip install --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.txt && \
		uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	else \
		set -x; \
		$(BIN)/python -m pip install --progress-bar off --require-hashes -r requirements.txt && \
		$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .; \
	fi
	@touch $@

# An environment that is there is taken as it is: that for a GPU is not made from the pinned packages.
kernel: $(if $(wildcard $(BIN)/python),,$(STAMP)) ## register the environment as the Jupyter kernel lusbook (VENV=.venv-gpu for another)
	$(BIN)/python -m ipykernel install $(KERNEL_AT) --name lusbook --display-name 'lusbook ($(VENV))' $(if $(KERAS_BACKEND),--env KERAS_BACKEND $(KERAS_BACKEND))

book: $(STAMP) ## run the whole study on the simulated cohorts and render it (PRESET=demo, CORES=all)
	$(step) 'study: $(PRESET), $(CORES) cores'
	$(BIN)/lusbook study --preset $(PRESET) --results _build/results --cores $(CORES) --recompute $(if $(WITHOUT_GPU),--without-gpu)
	$(step) 'chapters'
	$(BIN)/lusbook chapters --results _build/results --out _build/staging --preset $(PRESET)
	$(step) 'book'
	$(BUILD) _build/staging
	@printf '\nThe book: file://%s\n' '$(CURDIR)/_build/staging/_build/html/index.html'

site: $(STAMP) ## render the book from the committed study; nothing is computed
	$(step) 'book'
	$(BUILD) .
	@printf '\nThe book: file://%s\n' '$(CURDIR)/_build/html/index.html'

pdf: $(STAMP) ## the whole book as a PDF, which make site then offers; needs Chromium or Chrome (BOOK=_build/staging after make book)
	$(step) 'book on a single page'
	$(BUILD) $(BOOK) -q --builder singlehtml --path-output _build/pdf
	$(step) 'print'
	$(BIN)/python -m lusbook.site.pdf _build/pdf/_build/singlehtml $(BOOK)/_build/lusbook.pdf

test: $(STAMP) ## every check: ruff, unit tests, doctests, chapters, a book without warnings
	$(step) '1/5 ruff'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(step) '2/5 chapters are free of timing metadata (make strip cleans them)'
	$(STRIP) --verify book/*.ipynb
	$(step) '3/5 book: a warning is an error'
	$(BUILD) . -q --path-output _build/check
	$(step) '4/5 unit tests, doctests, chapters run with other parameters, the book in a browser'
	$(BIN)/pytest -n 2 --dist worksteal
	$(step) '5/5 nbval: the chapters give the committed outputs again'
	$(BIN)/pytest -n 2 --dist loadscope --nbval-lax book/*.ipynb
	$(step) 'every check passed'

test-all: test ## every check, and the slow tests: each setting and constant moves a fingerprint (about an hour)
	$(step) 'slow tests'
	$(BIN)/pytest -n 2 --dist worksteal -m slow

fingerprints: $(STAMP) ## write anew the numbers that results belong to, of the parts whose code gives others (minutes)
	$(BIN)/python -m lusbook.fingerprints

verify: $(STAMP) ## compute N=1 committed runs again, whole, and compare: other ones each week
	$(BIN)/python -m lusbook.provenance $(N)

chapter: name-of-chapter $(STAMP) ## run one chapter: make chapter NAME=sifa PARAMS="-p image_size 96"
	@mkdir -p _build/chapters
	$(BIN)/papermill book/$(NAME).ipynb _build/chapters/$(NAME).ipynb -k $(KERNEL) $(PARAMS)
	@printf '\nThe executed chapter: %s\n' '_build/chapters/$(NAME).ipynb'

name-of-chapter:
	@test -n '$(filter $(CHAPTERS),$(NAME))' || { echo "make chapter: NAME must be one of $(CHAPTERS); received '$(NAME)'" >&2; exit 1; }

results: $(STAMP) ## compute the committed study anew, and the committed chapters from it
	$(BIN)/lusbook study --preset $(PRESET) --results data/results --cores $(CORES) --recompute $(if $(WITHOUT_GPU),--without-gpu)
	rm -rf data/results/$(PRESET)-*
	$(BIN)/lusbook controls --results data/results --threads $(CORES)
	$(BIN)/lusbook queue data/queues/comparisons.yaml --minutes 600 --results data/results --threads $(CORES)
	for more in secondary rivals dose-response; do $(BIN)/lusbook $$more --preset $(PRESET) --results data/results || exit; done
	$(BIN)/lusbook attempts --preset $(PRESET) --results data/results --threads $(CORES)
	for seed in 1 2; do $(BIN)/lusbook real --preset $(PRESET) --set seed=$$seed --results data/results --threads $(CORES) || exit; done
	$(BIN)/lusbook chapters --results data/results --in-place
	$(BIN)/python -m lusbook.readme
	$(MAKE) format

bench: $(STAMP) ## measure speed into data/benchmarks (TORCH_PYTHON=a Python with PyTorch to compare with)
	@set -e; for name in $(BENCHMARKS); do \
		printf '\n== benchmark: %s ==\n' $$name; \
		case $$name in unet|inference) options='$(if $(TORCH_PYTHON),--torch-python $(TORCH_PYTHON))' ;; *) options= ;; esac; \
		$(BIN)/python benchmarks/$$name.py $$options; \
	done

screenshots: $(STAMP) ## pictures of every page of the book of make test into _build/screenshots: light, dark, a phone's
	$(BIN)/python -m tests.screenshots _build/check/_build/html _build/screenshots

fuzz: $(STAMP) ## feed every reader of files broken ones, RUNS=100000 each, some hours (SECONDS bounds each; READERS='COCO "clip MP4"')
	$(BIN)/python -m tests.fuzz $(READERS) --runs $(RUNS) --seconds $(SECONDS)

mutants: $(STAMP) ## put deliberate faults into the code of a run, one at a time; its tests must notice each (CORES=all)
	$(BIN)/python -m tests.mutants --jobs $(CORES)

audit: $(STAMP) ## known vulnerabilities of the pinned packages; needs the network
	$(BIN)/python -m tests.audit

slurm: $(STAMP) ## a study on a real Slurm of one node on this machine, which is installed, started and stopped (Debian, root)
	tests/slurm.sh install
	$(BIN)/pytest -q -rs tests/test_slurm.py

links: $(STAMP) ## follow the links of the book; needs the network, so no part of make test
	$(BIN)/jupyter-book build . --all -q --builder linkcheck --path-output _build/links

format: $(STAMP) strip ## format code and chapters, as the checks want them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

strip: $(STAMP) ## clean the chapters of timing metadata; their outputs stay
	$(STRIP) book/*.ipynb

requirements: ## pin requirements.txt anew from pyproject.toml (needs uv)
	uv lock
	uv export --quiet --no-emit-project --extra cpu --extra dev --extra slurm --extra export --no-header --format requirements-txt --output-file requirements.txt

clean: ## remove _build, studies of your own included; .venv and the committed study stay
	rm -rf _build .pytest_cache .ruff_cache .snakemake
	find lusbook tests -name __pycache__ -type d -prune -exec rm -rf {} +
