# make demo: install, train on the embedded data set, render. make test: install, run the tests.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT := 3000

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/python run_train.py experiment=demo outdir=output/demo
	$(BIN)/python generate.py --network=output/demo --outdir=output/demo/pictures --seeds=0-7 --trunc=0.8 \
		--render-program=orbit --grid=4x2
	@echo "Sample grids, the video and the snapshot are under output/demo"

test: .venv/installed-tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
		f"Parallax needs Python 3.11 to 3.13; $(PYTHON) is {sys.version.split()[0]}. Say make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	@touch $@

.venv/installed-tests: tests/requirements.txt .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -r tests/requirements.txt
	@touch $@

clean:
	rm -rf .venv output
