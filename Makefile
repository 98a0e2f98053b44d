# The front door. `make help` lists the targets; the stages are files made from files, so
# `make submit` on a bare clone does all it needs.
# `=`, not `?=`: an environment's own NAME or DATA is not meant for us.
RECIPE  = blog
NAME    = $(basename $(notdir $(RECIPE)))
DATA    = data
ONLY    = train
EPOCHS  =
PHOTOS  =
WEIGHTS = sharp
FORMAT  = onnx
MESSAGE = $(NAME), by the carvana kit
ARGS    =
PYTHON  = python3
export MESSAGE

ifneq ($(words $(RECIPE) $(NAME) $(DATA)),3)
$(error RECIPE, NAME and DATA are one word each, without spaces; use a link to a folder with one)
endif

# A .venv of another Python is made again.
VERSION    := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
BIN        := .venv/bin
READY      := .venv/ready-$(VERSION)
RUN        := runs/$(NAME)
MODEL      := $(RUN)/metrics.json
SUBMISSION := submissions/$(NAME).csv.gz
TRUTH      = $(wildcard $(DATA)/solution.csv)
SETTINGS   := --recipe $(RECIPE) --data $(DATA) $(if $(EPOCHS),--set training.epochs=$(EPOCHS))

# One after the other, also under `make -j`: each stage uses all cores.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help setup download train predict validate submit score report look cutout export demo
.PHONY: cluster-demo test test-oldest bench lint wheel clean clean-runs

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "variables: RECIPE=$(RECIPE) NAME=$(NAME) DATA=$(DATA) EPOCHS= MESSAGE= ARGS= PHOTOS= WEIGHTS=$(WEIGHTS) FORMAT=$(FORMAT)"

setup: $(READY) ## make .venv and install the pinned dependencies

$(READY): requirements.txt pyproject.toml
	@case "$(VERSION)" in 3.11|3.12|3.13) ;; \
	"") echo "$(PYTHON) does not start; name a Python of 3.11 to 3.13: make PYTHON=python3.13" >&2; exit 2;; \
	*) echo "$(PYTHON) is Python $(VERSION), and 3.11 to 3.13 is needed: make PYTHON=python3.13" >&2; exit 2;; esac
	@if [ -e .venv/python-$(VERSION) ]; then :; \
	elif ls .venv/python-* >/dev/null 2>&1; then rm -rf .venv; \
	elif [ -e .venv ]; then echo ".venv was not made by this Makefile; move it, then run make again" >&2; exit 2; fi
	$(PYTHON) -m venv .venv
	@touch .venv/python-$(VERSION)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

download: $(READY) ## fetch the training data from Kaggle, check and unpack them (ONLY=train, test or all)
	$(BIN)/carvana download --data $(DATA) --only $(ONLY)

$(DATA)/train: | $(READY)
	$(BIN)/carvana download --data $(DATA) --only train

$(DATA)/train_masks: | $(DATA)/train
	$(BIN)/carvana download --data $(DATA) --only train

$(DATA)/test: | $(READY)
	$(BIN)/carvana download --data $(DATA) --only test

$(DATA)/sample_submission.csv: | $(DATA)/test
	$(BIN)/carvana download --data $(DATA) --only test

train: $(READY) | $(DATA)/train $(DATA)/train_masks ## train RECIPE into runs/NAME, or resume it
	$(BIN)/carvana train $(SETTINGS) --run $(RUN) $(ARGS)

$(MODEL): | $(READY) $(DATA)/train $(DATA)/train_masks
	$(BIN)/carvana train $(SETTINGS) --run $(RUN) $(ARGS)

predict: $(SUBMISSION) ## predict the test photographs into submissions/NAME.csv.gz

$(RUN)/model.keras $(RUN)/recipe.toml: | $(MODEL) ;

$(SUBMISSION): $(RUN)/model.keras $(RUN)/recipe.toml | $(MODEL) $(DATA)/test
	$(BIN)/carvana predict --run $(RUN) --images $(DATA)/test --out $@

validate: $(SUBMISSION) $(DATA)/sample_submission.csv ## check the submission's rows and run lengths
	$(BIN)/carvana validate $(SUBMISSION) --sample $(DATA)/sample_submission.csv

submit: $(SUBMISSION) $(DATA)/sample_submission.csv ## validate, upload, wait for the score and the place on the board
	$(BIN)/carvana submit $(SUBMISSION) --data $(DATA) --message "$$MESSAGE"

score: $(MODEL) ## score the validation split at full size, and the submission where the truth is known
	$(BIN)/carvana score --run $(RUN) --data $(DATA)
	$(if $(TRUTH),$(MAKE) --no-print-directory $(SUBMISSION) && \
	$(BIN)/carvana score $(SUBMISSION) --truth $(TRUTH))

report: $(MODEL) ## write runs/NAME/report.html: figures, plot, masks, recipe
	$(BIN)/carvana report --run $(RUN) --data $(DATA)

look: $(READY) ## draw training samples into look.png
	$(BIN)/carvana look $(SETTINGS) --out look.png

cutout: $(READY) ## cut the cars of PHOTOS out into cutouts/, by the kit's own weights (WEIGHTS=sharp)
	$(BIN)/carvana cutout $(or $(PHOTOS),$(error name the photographs: make cutout PHOTOS="a.jpg b.jpg")) \
		--weights $(WEIGHTS) --out cutouts

export: $(MODEL) ## write the run as a model other programs open (FORMAT=onnx, litert, openvino, saved_model)
	$(BIN)/carvana export --run $(RUN) --data $(DATA) --format $(FORMAT) --out exports/$(NAME)-$(FORMAT) $(ARGS)

demo: $(READY) ## the whole pipeline without a Kaggle account, on rendered cars
	$(BIN)/carvana demo --data $(DATA)

MANY := $(DATA)/cluster-demo

cluster-demo: $(READY) ## predict rendered cars over two workers of this machine, and compare with one process
	$(BIN)/pip install --quiet --editable '.[cluster]'
	$(BIN)/carvana sandbox render $(MANY)/kaggle --train-cars 1 --test-cars 8
	$(BIN)/carvana download --from $(MANY)/kaggle --data $(MANY) --only test
	$(BIN)/carvana predict --weights $(WEIGHTS) --images $(MANY)/test --out $(MANY)/two.csv.gz --cluster local:2
	$(BIN)/carvana predict --weights $(WEIGHTS) --images $(MANY)/test --out $(MANY)/one.csv.gz
	cmp $(MANY)/one.csv.gz $(MANY)/two.csv.gz
	@echo "two workers and one process made the same file"

test: $(READY) ## run the tests, offline
	$(BIN)/pytest --numprocesses 2 $(ARGS)

# The first version of each range in pyproject.toml. The oldest TensorFlow has none for Python 3.13.
OLDEST  := .venv-oldest
EARLIEST = sed -n '/^dependencies/,/^export/s/^ *"\([a-z0-9-]*\)>=\([^",]*\)".*/\1==\2/p' pyproject.toml

test-oldest: $(OLDEST)/ready ## run the tests on the oldest versions that pyproject.toml allows (Python 3.11 or 3.12)
	$(OLDEST)/bin/python --version
	$(EARLIEST)
	$(OLDEST)/bin/pytest $(ARGS)

$(OLDEST)/ready: pyproject.toml
	@case "$(VERSION)" in 3.11|3.12) ;; \
	*) echo "the oldest versions need Python 3.11 or 3.12: make test-oldest PYTHON=python3.11" >&2; exit 2;; esac
	@if [ -e $(OLDEST) ] && [ ! -e $(OLDEST)/made-by-make ]; then \
	echo "$(OLDEST) was not made by this Makefile; move it, then run make again" >&2; exit 2; fi
	rm -rf $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	@touch $(OLDEST)/made-by-make
	$(EARLIEST) > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/pip install --quiet --constraint $(OLDEST)/constraints.txt --editable .[dev]
	@touch $@

bench: $(READY) ## measure speed, as ratios to the plain way (an idle machine, minutes)
	$(BIN)/python benchmarks/bench.py --data $(DATA) $(ARGS)

lint: $(READY) ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: $(READY) ## build the package into dist/
	rm -rf build dist/carvana-*.whl
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

HEX   := [0-9a-f]
HEX12 := $(HEX)$(HEX)$(HEX)$(HEX)$(HEX)$(HEX)$(HEX)$(HEX)$(HEX)$(HEX)$(HEX)$(HEX)

clean: ## delete what can be made again in minutes: caches and what the demo made
	rm -rf .pytest_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	$(foreach lock,$(wildcard $(DATA)/cache/$(HEX12)/.lock),rm -rf $(dir $(lock));)
	$(if $(wildcard $(DATA)/demo-kaggle/.made-by-demo),rm -rf $(DATA)/demo-kaggle)
	$(if $(wildcard $(MANY)/kaggle/rendered.json),rm -rf $(MANY))
	$(if $(wildcard $(DATA)/demo/.made-by-demo),rm -rf $(DATA)/demo)
	$(if $(wildcard runs/demo/.made-by-demo),rm -rf runs/demo submissions/demo.csv.gz*)

PRODUCTS := find runs/ submissions/ -mindepth 1 -maxdepth 1 ! -name README.md ! -name '.*'

clean-runs: ## list all runs and submissions, and delete them if you say so
	@test -n "$$($(PRODUCTS))" || { echo "no runs or submissions"; exit 1; }
	@$(PRODUCTS)
	@printf 'Delete all of these? [y/N] '; read answer; \
	if [ "$$answer" = y ]; then $(PRODUCTS) -exec rm -rf {} +; else echo "nothing deleted"; fi
