.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

# Which Python makes .venv; empty means the first suitable one of the list below.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11)
INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

help:
	@echo "make demo    set up, then train a small model on this machine and show what it learned: some minutes"
	@echo "make test    set up, then run the tests            (one file: make test ARGS=tests/test_types.py)"
	@echo "make lint    set up, then check style, format and types"
	@echo "make bench   set up, then measure against other libraries, hours     (ARGS='--case tiny-12x16', ARGS=--rollout)"
	@echo "make clean   remove .venv, .venv-bench and the tools' caches; runs/ and models/ stay"
	@echo
	@echo "PYTHON=/path/to/python chooses the Python (3.11 or newer) that .venv is made with."

demo: .venv/.runtime
	@.venv/bin/sharpen demo

# A process for each processor, each with one thread: models this small are slower on several. The files in their order,
# not those of most tests first: what takes longest are few tests, and would be alone at the end.
test: .venv/.dev
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/.dev
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

bench: .venv/.dev .venv-bench/trl/.done .venv-bench/vllm/.done
	@.venv/bin/python benchmarks/bench.py $(ARGS)

clean:
	rm -rf .venv .venv-bench build dist .mypy_cache .ruff_cache .pytest_cache

.venv/.runtime: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing sharpen into .venv. The first time takes some minutes: PyTorch is large."
	@$(INSTALL) -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "Installing sharpen and its tools into .venv. The first time takes some minutes: PyTorch is large."
	@$(INSTALL) -e ".[dev,gguf,tensorboard]"
	@touch $@

# The peers of the benchmark, each in an environment of its own, with the same PyTorch and the transformers it wants.
.venv-bench/%/.done: benchmarks/%.txt constraints.txt | .venv/bin/pip
	@echo "Installing $* into .venv-bench/$*, to measure against it."
	@.venv/bin/python -m venv .venv-bench/$*
	@.venv-bench/$*/bin/python -m pip install --quiet --disable-pip-version-check \
		$$(grep '^torch==' constraints.txt) -r $<
	@# vLLM asks for these, reads no image or sound here, and does not start where their build is not torch's.
	@.venv-bench/$*/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null
	@touch $@

# pip is the last thing that venv writes, so where it exists the environment is complete.
.venv/bin/pip:
	@for python in $(CANDIDATES); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then exec "$$python" -m venv .venv; fi; \
		without_venv=$$python; \
	done; \
	if [ -n "$$without_venv" ]; then \
		echo "$$without_venv has no venv module." >&2; \
		echo "Debian and Ubuntu: sudo apt install python3-venv. Or name another: PYTHON=/path/to/python" >&2; \
	else \
		echo "No Python 3.11 or newer found (tried: $(subst ",,$(CANDIDATES)))." >&2; \
		echo "Debian and Ubuntu: sudo apt install python3 python3-venv. macOS: brew install python." >&2; \
		echo "Or name one that is not on the PATH: PYTHON=/path/to/python" >&2; \
	fi; \
	exit 1
