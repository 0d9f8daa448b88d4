# `make demo` and `make test` install what they need into .venv. They require
# Python 3.11+, git and make.
#
# On Linux the standard build of PyTorch brings 3 GB of CUDA libraries. Without an NVIDIA GPU, give
# PyTorch's index of CPU builds (see PyTorch's install page, "Compute platform: CPU"):
#
#   make demo INDEX=...
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Not from the environment, where the name may mean anything; pip reads PIP_EXTRA_INDEX_URL there.
INDEX  :=
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(INDEX),--extra-index-url "$(INDEX)")
EDITABLE := -e . -e ./server -e ./tools
PROTOS := $(shell find protos -name '*.proto')
ARGS   ?=
OUT    ?= protos

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-vllm serve test check compat engines bench plot protos format clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

$(VENV)/.server: pyproject.toml server/pyproject.toml tools/pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once; torch makes it take a minute or two)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Trimtab needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) deploy/torch_build.py announce "$(INDEX)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(EDITABLE)
	@$(BIN)/python deploy/torch_build.py check "$(INDEX)"
	@echo "compiling the solver for this machine (once)"
	@$(BIN)/trimtab-server warm --device cpu
	@touch $@

$(VENV)/.dev: $(VENV)/.server
	@$(PIP) $(EDITABLE) -e '.[dev]'
	@touch $@

# What was installed before may have another torch than the one that is asked for now.
.PHONY: torch
torch: $(VENV)/.server
	@$(BIN)/python deploy/torch_build.py check "$(INDEX)"
TORCH := $(if $(INDEX),torch)

setup: $(VENV)/.dev $(TORCH)  ## Set up .venv with everything a developer needs

demo: $(VENV)/.server $(TORCH)  ## Replay real loads on workers that a server keeps balanced (ARGS=--help)
	@$(BIN)/python examples/demo.py $(ARGS)

serve: $(VENV)/.server $(TORCH)  ## Start a server on this machine (ARGS=--help)
	@$(BIN)/trimtab-server serve $(ARGS)

test: $(VENV)/.dev $(TORCH)  ## Run all tests (ARGS="-m unit" for the fast part)
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev  ## Run all checks of CI except the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/hadolint Dockerfile
	$(BIN)/docker-compose config --quiet
	$(BIN)/python -m pytest -q tests/test_layering.py tests/test_contract.py
	$(MAKE) --no-print-directory protos OUT=$(VENV)-protos/fresh
	diff -r -x '*.proto' -x __init__.py -x py.typed -x __pycache__ -x requirements.txt \
		$(VENV)-protos/fresh protos

compat:  ## Run the client alone on the oldest and newest versions of its dependencies
	@for versions in 'protobuf==5.29.6 grpcio==1.63.0 numpy==1.26.4' 'protobuf>=7,<8'; do \
		rm -rf $(VENV)-compat && $(PYTHON) -m venv $(VENV)-compat && \
		$(VENV)-compat/bin/python -m pip install --quiet --disable-pip-version-check \
			$$versions . && \
		$(VENV)-compat/bin/python -W error tests/compat.py || exit 1; \
	done

$(VENV)-engines/.ready: tests/engines/prepare.py tests/engines/requirements.txt constraints.txt
	@echo "fetching the engines' code into $(VENV)-engines (once; about 1 GB)"
	@$(PYTHON) tests/engines/prepare.py $(VENV)-engines
	@touch $@

engines: $(VENV)/.dev $(VENV)-engines/.ready  ## Run the engines' own load balancers with the plug-ins
	$(BIN)/python -m pytest tests/engines $(ARGS)

demo-vllm: $(VENV)/.dev $(VENV)-engines/.ready  ## Watch vLLM's own load balancer follow Trimtab, on four CPU ranks
	@$(BIN)/python -m tests.engines.demo

bench: $(VENV)/.dev  ## Measure balance, moves and the overhead of RPCs (ARGS=--help)
	$(BIN)/python -m tests.bench $(ARGS)

plot: $(VENV)/.server  ## Plot a FILE of `make bench ARGS="served --json FILE"` (ARGS="FILE SVG")
	@$(PIP) $(EDITABLE) -e '.[plots]'
	$(BIN)/python -m tests.bench.plot $(ARGS)

$(VENV)-protos/.ready: protos/requirements.txt
	@$(PYTHON) -m venv $(VENV)-protos
	@$(VENV)-protos/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

protos: $(VENV)-protos/.ready  ## Generate code from protos/*.proto
	@mkdir -p $(OUT)
	@PATH=$(abspath $(VENV)-protos/bin):$$PATH python -m grpc_tools.protoc -Iprotos \
		--python_out=$(OUT) --pyi_out=$(OUT) $(PROTOS)
	@PATH=$(abspath $(VENV)-protos/bin):$$PATH python -m grpc_tools.protoc -Iprotos \
		--grpc_python_out=$(OUT) --mypy_grpc_out=quiet:$(OUT) $(filter %_service.proto,$(PROTOS))

format: $(VENV)/.dev  ## Format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

clean:  ## Remove the virtual environments
	rm -rf $(VENV) $(VENV)-protos $(VENV)-compat $(VENV)-engines
