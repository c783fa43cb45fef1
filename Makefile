# Two commands from a bare checkout: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := --extra lab --extra server --extra postgres
# Many container images set this, and then each of the some thousand processes of the tests would compile luff anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint prove bench lock clean help
.DEFAULT_GOAL := help

help: ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(VENV)/.runtime ## Take the tour: a local mesh with the real Envoy, the shipped experiments, an HTML report.
	@$(BIN)/luff demo

# A proxy of a lab takes two to five of the kernel's inotify instances: where a user has 128, four labs at once run out.
INOTIFY = $(shell cat /proc/sys/fs/inotify/max_user_instances 2>/dev/null || echo 1024)
WORKERS ?= $(shell if [ $(INOTIFY) -ge 512 ]; then echo 5; elif [ $(INOTIFY) -ge 256 ]; then echo 4; else echo 3; fi)
# So that its workers do not first import and collect all the others.
TIMED = $(shell grep -rl --include='*.py' 'pytest.mark.timing' tests)
test: $(VENV)/.dev ## Run every test: a parallel part, then the part that needs the machine to itself.
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not timing" $(PYTEST_FLAGS)
	@$(BIN)/python -m pytest -n 4 --dist loadfile -m timing $(PYTEST_FLAGS) $(TIMED)

lint: $(VENV)/.dev ## Check style, types and the import contracts.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

PROVE_MINUTES ?= 30
PROVE_KILLS ?= 200
PROVE_ORPHANS ?= 20
prove: $(VENV)/.dev ## Prove the restore protocol: every schedule, every mutant, 200 kills, 58 scenarios; writes build/proof.
	@failed=; \
	$(BIN)/python -m tests.crash.prove --minutes $(PROVE_MINUTES) --out build/proof || failed="$$failed schedules"; \
	LUFF_TEST_KILLS=$(PROVE_KILLS) LUFF_TEST_ORPHANS=$(PROVE_ORPHANS) LUFF_TEST_PROOF=$(CURDIR)/build/proof \
	  $(BIN)/python -m pytest -q tests/story/test_kills.py || failed="$$failed kills"; \
	$(BIN)/python -m tests.scenes.prove --out build/proof || failed="$$failed scenarios"; \
	LUFF_TEST_WHOLE=1 $(BIN)/python -m pytest -q tests/story/test_selftest.py || failed="$$failed selftest"; \
	test -z "$$failed" || { echo "not proven:$$failed" >&2; exit 1; }

bench: $(VENV)/.dev $(VENV)-bench/.made ## Measure, and print the figures side by side.
	@$(BIN)/python bench/all.py

lock: ## Make the lock files anew from pyproject.toml (needs uv).
	uv pip compile --universal --generate-hashes --no-header --no-annotate -q $(EXTRAS) -p 3.11 pyproject.toml -o requirements.lock
	uv pip compile --universal --generate-hashes --no-header --no-annotate -q $(EXTRAS) --group dev -p 3.11 -c requirements.lock pyproject.toml -o requirements-dev.lock
	uv pip compile --universal --generate-hashes --no-header --no-annotate -q --group bench -p 3.11 -o requirements-bench.lock

clean: ## Remove the virtual environment and what tools left.
	rm -rf $(VENV) $(VENV)-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "luff needs Python 3.11 or newer as '$(PYTHON)'; name another with: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module; install it (on Debian and Ubuntu: apt-get install python3-venv) and run make again" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python requirements.lock pyproject.toml
	@test -e $(VENV)/.dev || $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@test -e $(VENV)/.dev || $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

# The development lock is a superset with the build backend in it, so that nothing more is fetched.
$(VENV)/.dev: $(VENV)/bin/python requirements-dev.lock pyproject.toml
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.runtime

# Load generators to compare with; what they need conflicts with what luff needs.
$(VENV)-bench/.made: $(VENV)/bin/python requirements-bench.lock
	@$(PYTHON) -m venv $(VENV)-bench
	@$(VENV)-bench/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-bench.lock
	@touch $@
