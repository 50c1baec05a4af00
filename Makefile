# One way to run everything: `make demo`, `make test`, `make check`, `make bench`, `make faults`, `make fuzz`,
# `make deploy-check`, `make audit`, `make release`.

PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV   ?= .venv
FUZZ_INPUTS ?= 1000000
# Two processes, a file of tests in one of them: what starts a server or a Ray cluster does so once.
PYTEST := -m pytest -n 2 --dist loadfile
# Tests wait for other processes and measure times: what failed beside other tests runs once more, alone.
ALONE  := -m pytest --last-failed --last-failed-no-failures none
# The marks of the tests that `make test` leaves out and `make check` runs; pyproject.toml says what each means.
MARKED := ray or server or process or he or torch or postgres or netns or slow or fuzz
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Compiled modules are kept, whatever the environment says: the tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check bench bench-large faults fuzz deploy-check audit release lock clean

demo: $(READY)
	$(BIN)/consilo demo

test: $(READY)
	$(BIN)/python $(PYTEST) -m "not ($(MARKED))" || $(BIN)/python $(ALONE) -m "not ($(MARKED))"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python $(PYTEST) -m "$(MARKED)" --durations=15 || $(BIN)/python $(ALONE) -m "$(MARKED)"

bench: $(READY)
	$(BIN)/python -m tests.bench

# 10^8 rows, and vectors of 10^8 values: an hour, 16 GiB of memory, 10 GiB of disk.
bench-large: $(READY)
	$(BIN)/python -m tests.bench rows_large vectors_large

# Every fault at every state of a round, then the soak; it writes docs/faults.md. An hour, most of it waiting.
faults: $(READY)
	$(BIN)/python -m tests.faults

# A million seeded inputs a decoder, then two minutes by coverage. Atheris is no dependency: it is fetched here alone.
fuzz: $(READY)
	CONSILO_FUZZ_INPUTS=$(FUZZ_INPUTS) $(BIN)/python -m pytest -m fuzz tests/test_fuzz.py tests/networks
	test -d .fuzz/atheris || $(BIN)/pip install --quiet --no-deps --target .fuzz atheris==3.0.0
	PYTHONPATH=.fuzz:. $(BIN)/python -m tests.fuzz_atheris -max_total_time=120 -max_len=8192 .fuzz/corpus

# What is in deploy/, by linters and by Helm itself (0.5 GB), which are no dependencies: they are fetched here alone.
deploy-check: $(READY)
	cmp -s tests/deploy/tools.txt .deploy-tools/fetched || { rm -rf .deploy-tools; \
	  $(BIN)/pip install --quiet --target .deploy-tools -r tests/deploy/tools.txt && \
	  cp tests/deploy/tools.txt .deploy-tools/fetched; }
	$(BIN)/python -m pytest -m "" tests/deploy

# The lock file beside published advisories; and dist/: the wheel, its hash and its bill of materials. Their tools are no
# dependencies: they are fetched here alone.
audit release: $(READY)
	cmp -s tests/release/tools.txt .release-tools/fetched || { rm -rf .release-tools; \
	  $(BIN)/pip install --quiet --target .release-tools -r tests/release/tools.txt && \
	  cp tests/release/tools.txt .release-tools/fetched; }
	PYTHONPATH=.release-tools:. $(BIN)/python -m tests.release $(if $(filter audit,$@),audit,wheel)

# torch first and alone: whatever depends on it must find it there, or pip fetches another build.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Consilo needs Python 3.11, this is %d.%d: make PYTHON=/path/to/python3.11" % sys.version_info[:2] if sys.version_info[:2] != (3, 11) else 0)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --progress-bar off "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --progress-bar off -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Resolve the dependencies anew, in an environment of its own.
lock:
	rm -rf .lock-venv
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet torch==2.13.0
	.lock-venv/bin/pip install --quiet --editable '.[demo,export,postgres,train,dev]'
	{ echo '# Made by `make lock`. torch has no local version: a +cpu build is on no index.'; \
	  .lock-venv/bin/pip freeze --exclude-editable | sed 's/^torch==\([0-9.]*\)+.*/torch==\1/'; } > requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) .lock-venv .fuzz .deploy-tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
