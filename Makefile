# What can be done with this repository; `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup demo test e2e check soak bench scale performance pictures documents lock

PYTHON ?= python3
BIN := .venv/bin
DEBIAN := python3-venv unixodbc libsqliteodbc odbc-postgresql postgresql samba-ad-dc samba-ad-provision \
	prometheus systemd fonts-dejavu-core libfaketime iproute2 qemu-system-x86 ovmf ipxe-qemu wimtools
FIGURE ?=
PART ?=
MACHINES ?=
REPORT ?=
WORKERS ?= 4
PCS ?= 3
BENCH = $(BIN)/python -m bench $(if $(MACHINES),--machines $(MACHINES)) $(if $(REPORT),--report $(REPORT))

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/ready ## install what a fresh Debian 12 lacks, and .venv

.venv/ready: requirements/dev.lock pyproject.toml
	@missing=""; for each in $(DEBIAN); do \
		dpkg-query -Wf '$${Status}' $$each 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$each"; \
	done; \
	if [ -n "$$missing" ]; then \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		echo "Installing$$missing"; \
		$$sudo apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qy --no-install-recommends $$missing; \
	fi
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## start a site with sample jobs and open the portal on it
	@$(BIN)/imageinvoker demo

check: setup ## lint, format, types, generated documents, who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 client
	$(BIN)/python -m bus.documents --check
	$(BIN)/pytest -q -n $(WORKERS) tests/test_imports.py

test: check ## everything that `check` does, and every test
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --ignore tests/test_imports.py

e2e: setup ## make a boot image and start virtual PCs with it
	$(BIN)/pytest -n $(PCS) --dist loadfile tests/e2e_boot

soak: setup ## kill, freeze and fill the parts of a site for long, while 200 machines go through it
	IMAGEINVOKER_FAULT_MACHINES=200 IMAGEINVOKER_FAULT_ROUNDS=5 IMAGEINVOKER_FAULT_CUTS=30 \
		$(BIN)/pytest -n $(WORKERS) -s tests/faults

bench: setup ## every figure, or one: make bench FIGURE=show_rate
	@$(BENCH) $(FIGURE)

performance: setup ## every figure, or some, into docs/performance.md
	@$(BENCH) $(FIGURE) | tee /dev/stderr | $(BIN)/python -m bench.performance docs/performance.md

scale: setup ## copies of services, many sites on one bus; one part: make scale PART=copies
	@$(BIN)/python -m bench.scale_out $(PART)

pictures: setup ## take the pictures of the portal anew
	$(BIN)/python docs/take_pictures.py

documents: setup ## write the documents of the wire contract anew
	$(BIN)/python -m bus.documents

lock: ## write the lock files anew, with the newest versions that fit
	$(BIN)/uv pip compile -q --upgrade pyproject.toml --all-extras --group dev --universal \
		--python-version 3.11 --generate-hashes --no-header -o requirements/dev.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra client --universal \
		--python-version 3.11 --generate-hashes --no-header -c requirements/dev.lock -o requirements/client.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra menu --extra auth --extra scheduler --extra monitor --universal \
		--python-version 3.11 --generate-hashes --no-header -c requirements/dev.lock -o requirements/services.lock
	echo "hatchling>=1.27" | $(BIN)/uv pip compile -q - --universal \
		--python-version 3.11 --generate-hashes --no-header -c requirements/dev.lock -o requirements/build.lock
