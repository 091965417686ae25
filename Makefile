# The two commands of the README. Each makes the same environment once, in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bare long counts clean

demo: $(READY)  ## Run the whole pipeline on generated scenes; results land in demo/
	$(BIN)/msfnet demo --out demo --force

test: $(READY)  ## Run the tests
	$(BIN)/python -m pytest

check: $(READY)  ## Lint, types, and the direction of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bare: $(READY)  ## Install the wheel in clean environments of Python 3.10 and 3.11, without torch
	$(BIN)/python -m pytest -m slow tests/end_to_end/test_bare_environment.py

long: $(READY)  ## The slow tests that every change has to pass
	$(BIN)/python -m pytest -m slow tests/train/test_overfitting.py \
		tests/rigs/test_folding_benchmark.py tests/export/test_presets.py \
		tests/rigs/test_streaming_soak.py tests/cli/test_sweep.py tests/runtime/test_privacy.py \
		tests/train/test_training.py tests/export/test_to_onnx.py tests/export/test_encoders.py \
		tests/benchmarks/scoring/test_flat_memory.py tests/calibration/test_search.py \
		tests/train/test_distributed.py

COUNTS := bench --sweep preset=lite,nano --sweep size=192x256 --counts --tolerance 1%

counts: $(READY)  ## Hold arithmetic, parameters and bytes of the presets against benchmarks/counts.json
	$(BIN)/msfnet $(COUNTS) --compare benchmarks/counts.json

clean:  ## Remove what the commands above made
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (a few minutes, once): PyTorch, ONNX Runtime, TensorRT for RTX"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@touch $@
