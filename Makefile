# The front door. `make help` lists the targets; the stages are files made from files, so
# `make submit` on a bare clone does all it needs.
RECIPE  ?= blog
NAME    ?= $(RECIPE)
DATA    ?= data
EPOCHS  ?=
MESSAGE ?= $(NAME), by the carvana kit
ARGS    ?=
PYTHON  ?= python3

BIN        := .venv/bin
READY      := .venv/ready
RUN        := runs/$(NAME)
MODEL      := $(RUN)/metrics.json
SUBMISSION := submissions/$(NAME).csv.gz
TRUTH      ?= $(wildcard $(DATA)/solution.csv)
SETTINGS   := --recipe $(RECIPE) --data $(DATA) $(if $(EPOCHS),--set training.epochs=$(EPOCHS))

.DEFAULT_GOAL := help
.PHONY: help setup train predict validate score look test lint clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "variables: RECIPE=$(RECIPE) NAME=$(NAME) DATA=$(DATA) EPOCHS= MESSAGE= ARGS="

setup: $(READY) ## make .venv and install the pinned dependencies

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt --editable .
	@touch $@

train: $(READY) ## train RECIPE into runs/NAME, or go on with it
	$(BIN)/carvana train $(SETTINGS) --run $(RUN) $(ARGS)

$(MODEL): | $(READY)
	$(BIN)/carvana train $(SETTINGS) --run $(RUN) $(ARGS)

predict: $(SUBMISSION) ## predict the test photographs into submissions/NAME.csv.gz

$(SUBMISSION): $(MODEL) | $(READY)
	$(BIN)/carvana predict --run $(RUN) --images $(DATA)/test --out $@

validate: $(SUBMISSION) ## check the submission's rows and run lengths
	$(BIN)/carvana validate $(SUBMISSION) --sample $(DATA)/sample_submission.csv

score: $(MODEL) ## score the validation split at full size, and the submission where the truth is known
	$(BIN)/carvana score --run $(RUN) --data $(DATA)
	$(if $(TRUTH),$(MAKE) --no-print-directory $(SUBMISSION) && \
	$(BIN)/carvana score $(SUBMISSION) --truth $(TRUTH))

look: $(READY) ## draw what the network sees into look.png
	$(BIN)/carvana look $(SETTINGS) --out look.png

test: $(READY) ## run the tests, offline
	$(BIN)/pytest $(ARGS)

lint: $(READY) ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove runs and submissions; data and .venv stay
	find runs submissions -mindepth 1 ! -name README.md -delete
