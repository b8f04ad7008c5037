# The commands of this checkout; `make` lists them. Each does all its own set-up, in .venv: nothing else is installed.

.DEFAULT_GOAL := help
.PHONY: help serve test test-long format docs graphiql lock audit wheel clean

PYTHON := $(or $(FORKPOINT_PYTHON),$(PYTHON),python3)
BIN := .venv/bin

# Installing is ours alone: no nagging, no other folder, no foreign packages.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_USER := 0
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
ifdef CI
export PIP_PROGRESS_BAR := off
endif

# Shell functions. `environment serve` and `environment test` bring .venv to requirements/serve.txt or requirements/test.txt,
# which holds all of the former. .venv/serve.key and .venv/test.key are written last and say what was installed, with
# which interpreter and where; so whatever was killed, moved or upgraded is made anew. Warm, that costs 20 ms.
define functions
set -u; \
fail() { echo "$$*" >&2; exit 1; }; \
key() { echo "$(PYTHON) $$($(BIN)/python -V 2>&1) $(CURDIR) $$(cksum < requirements/$$1.txt)"; }; \
is_current() { [ "$$(cat .venv/$$1.key 2>/dev/null)" = "$$(key $$1)" ]; }; \
check_python() { \
  command -v "$(PYTHON)" >/dev/null \
    || fail "$(PYTHON) is missing. Install Python 3.11 or later (Debian: apt-get install python3 python3-venv), or name it with FORKPOINT_PYTHON."; \
  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "$$("$(PYTHON)" -V 2>&1) is too old: 3.11 or later is needed. Install it, or name it with FORKPOINT_PYTHON."; \
  "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
    || fail "$(PYTHON) cannot make virtual environments. Install its venv module (Debian: apt-get install python3-venv)."; \
}; \
install() { \
  if [ "$$1" = serve ] || ! is_current serve; then \
    echo "Making a virtual environment in .venv…"; \
    said=$$(rm -rf .venv 2>&1 && "$(PYTHON)" -m venv .venv 2>&1) || fail "$$said" "The folder .venv could not be made."; \
  fi; \
  rm -f .venv/*.key; \
  echo "Installing $$(grep -c '==' requirements/$$1.txt) packages, which takes about half a minute…"; \
  $(BIN)/python -m pip install --require-hashes -r requirements/$$1.txt \
    && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . \
    || fail "Installing failed; the lines above say why. Mend that and run make again."; \
  key serve > .venv/serve.key; \
  if [ "$$1" = test ]; then key test > .venv/test.key; fi; \
  echo "Installed."; \
}; \
environment() { \
  is_current $$1 && return; \
  check_python; \
  ( exec 9< Makefile; \
    if command -v flock >/dev/null && ! flock -n 9; then echo "Waiting for another make to install…"; flock 9; fi; \
    is_current $$1 || install $$1 ) || exit 1; \
}; \
named() { echo; echo "== $$*"; "$$@"; }; \
packages() { \
  current="$$($(BIN)/node --version) $(CURDIR) $$(cksum < $$1/package-lock.json)"; \
  [ "$$(cat $$1/node_modules/.key 2>/dev/null)" = "$$current" ] && return; \
  echo "Installing the npm packages of $$1…"; \
  PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --prefix $$1 --ignore-scripts --no-audit --no-fund --loglevel=error \
    || fail "Installing the npm packages of $$1 failed; the lines above say why. Mend that and run make again."; \
  echo "$$current" > $$1/node_modules/.key; \
}; \
alone() { unset $$(env | sed -n -E 's/^(DATABASE_URL|FORKPOINT_[A-Z_]+|PG[A-Z]+)=.*/\1/p'); }
endef

help: ## List the commands
	@sed -n -E 's/^([a-z-]+):.*## (.*)/  make \1 - \2/p' $(firstword $(MAKEFILE_LIST)) | awk -F ' - ' '{ printf "%-18s%s\n", $$1, $$2 }'

# Ctrl-C goes to make as well, which complains of a child that is gone before it looks, or that fails.
serve: ## Serve on http://127.0.0.1:8000 with an embedded PostgreSQL, or that of DATABASE_URL; ARGS="--port 9000"
	@$(functions); trap 'sleep 0.3; exit 0' INT; environment serve; trap - INT; \
	exec $(BIN)/python -m graphql_api serve --migrate $(ARGS)

test: ## Check format, lint, types and import contracts, and run the tests; ARGS="-k fork" chooses some
	@$(functions); environment test; packages examples; packages graphiql; alone; \
	named $(BIN)/ruff format --check \
	  && named $(BIN)/ruff check \
	  && named $(BIN)/mypy \
	  && named $(BIN)/lint-imports \
	  && named $(BIN)/pytest $(ARGS)

test-long: ## Run the tests that take minutes
	@$(functions); environment test; packages examples; packages graphiql; alone; \
	named $(BIN)/pytest -m long -o faulthandler_timeout=7200 $(ARGS)

format: ## Format the code, and mend what the linter can
	@$(functions); environment test; named $(BIN)/ruff format && named $(BIN)/ruff check --fix

docs: ## Write what schema.graphql and docs/ take from the code
	@$(functions); environment test; \
	named $(BIN)/python -m graphql_api export-schema --output schema.graphql && named $(BIN)/python -m tests.generate_docs

graphiql: ## Build GraphiQL, which the service shows to browsers, from graphiql/ into graphql_api/graphiql/
	@$(functions); environment test; packages graphiql; PATH="$(CURDIR)/$(BIN):$$PATH" named $(BIN)/npm run build --prefix graphiql

# uv keeps the versions that are locked already; ARGS=--upgrade takes the newest.
lock: ## Lock the requirements of pyproject.toml; ARGS=--upgrade takes newer versions
	@$(functions); environment test; \
	compile() { named env UV_NO_CONFIG=1 $(BIN)/uv pip compile "$$@" --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet $(ARGS); }; \
	service() { compile pyproject.toml --extra embedded "$$@"; }; \
	service --group build -o requirements/serve.txt \
	  && service --group test -c requirements/serve.txt -o requirements/test.txt \
	  && compile --group ariadne -o requirements/ariadne.txt \
	  && compile --group audit -o requirements/audit.txt

# Not part of `make test`: it asks others, and what they know changes. What could not be looked up fails, too.
audit: ## Look for known vulnerabilities of all that is locked, which needs the network
	@$(functions); environment test; status=0; \
	$(BIN)/python -m venv --clear .venv/audit \
	  && .venv/audit/bin/python -m pip install --quiet --require-hashes -r requirements/audit.txt \
	  || fail "Installing pip-audit failed; the lines above say why."; \
	for each in requirements/*.txt; do \
	  named .venv/audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r $$each || status=1; \
	done; \
	for each in graphiql examples; do PATH="$(CURDIR)/$(BIN):$$PATH" named $(BIN)/npm audit --prefix $$each || status=1; done; \
	exit $$status

wheel: ## Build the wheel into dist/
	@$(functions); environment serve; named $(BIN)/hatchling build -t wheel

clean: ## Remove what was installed and built; the data in .forkpoint stay
	@rm -rf .venv dist graphiql/node_modules examples/node_modules examples/*/__generated__ examples/ariadne/.venv examples/ariadne/forkpoint_client
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
