# The few commands people type; `make` lists them.
.PHONY: help check format test test-all serve settings-page

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

check: ## format, lint, types and import contracts, changing nothing
	uv run --no-sync ruff format --check .
	uv run --no-sync ruff check .
	uv run --no-sync mypy
	uv run --no-sync lint-imports

format: ## format, and mend what the linter can
	uv run --no-sync ruff format .
	uv run --no-sync ruff check --fix .

test: ## the fast lane
	uv run --no-sync pytest -q -n auto -m "not slow"

test-all: ## all that must pass, as CI runs it
	.ci/run

serve: ## run the service on its embedded PostgreSQL under ./data
	uv run factory-logs serve

settings-page: ## write docs/reference/settings.md from the settings
	uv run --no-sync factory-logs settings --markdown > docs/reference/settings.md
