# The front door: `make help` lists the targets. Files are prerequisites, so `make submit` in a
# fresh clone downloads, trains and predicts. `=`: ignore NAME and DATA from the environment.
RECIPE  = blog
NAME    = $(basename $(notdir $(RECIPE)))
DATA    = data
ONLY    = train
EPOCHS  =
PHOTOS  =
WEIGHTS = sharp
FORMAT  = onnx
export MESSAGE = $(NAME), by the carvana kit
ARGS    =
PYTHON  = python3

ifneq ($(words $(RECIPE) $(NAME) $(DATA)),3)
$(error RECIPE, NAME and DATA are one word each, without spaces; use a link to a folder with one)
endif

VERSION    := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY      := .venv/ready-$(VERSION)
CARVANA    := .venv/bin/carvana
TRAINED    := runs/$(NAME)/metrics.json
SUBMISSION := submissions/$(NAME).csv.gz
TRUTH       = $(wildcard $(DATA)/solution.csv)
SETTINGS   := --recipe $(RECIPE) --data $(DATA) $(if $(EPOCHS),--set training.epochs=$(EPOCHS))
TRAIN       = $(CARVANA) train $(SETTINGS) --run runs/$(NAME) $(ARGS)

.NOTPARALLEL: # also under `make -j`: each stage uses all cores
.PHONY: help setup download train predict validate submit score report look cutout export demo
.PHONY: cluster-demo test test-oldest bench lint wheel clean clean-runs

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "variables: RECIPE=$(RECIPE) NAME DATA ONLY EPOCHS MESSAGE PHOTOS WEIGHTS FORMAT ARGS PYTHON"

setup: $(READY) ## make .venv and install the pinned dependencies
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) scripts/environment.py .venv

download: $(READY) ## fetch, check and unpack Kaggle's files (ONLY=train, test or all)
	$(CARVANA) download --data $(DATA) --only $(ONLY)
$(DATA)/train $(DATA)/train_masks: | $(READY)
	$(CARVANA) download --data $(DATA) --only train
$(DATA)/test $(DATA)/sample_submission.csv: | $(READY)
	$(CARVANA) download --data $(DATA) --only test

train: $(READY) | $(DATA)/train $(DATA)/train_masks ## train RECIPE into runs/NAME, or resume it
	$(TRAIN)
$(TRAINED): | $(READY) $(DATA)/train $(DATA)/train_masks
	$(TRAIN)
runs/$(NAME)/model.keras runs/$(NAME)/recipe.toml: | $(TRAINED) ;

predict: $(SUBMISSION) ## predict the test photographs into submissions/NAME.csv.gz
$(SUBMISSION): runs/$(NAME)/model.keras runs/$(NAME)/recipe.toml | $(DATA)/test
	$(CARVANA) predict --run runs/$(NAME) --images $(DATA)/test --out $@

validate: $(SUBMISSION) $(DATA)/sample_submission.csv ## check the submission's rows and run lengths
	$(CARVANA) validate $(SUBMISSION) --sample $(DATA)/sample_submission.csv
submit: $(SUBMISSION) $(DATA)/sample_submission.csv ## validate, upload, wait for the score
	$(CARVANA) submit $(SUBMISSION) --data $(DATA) --message "$$MESSAGE"

score: $(TRAINED) ## score the validation split, and the submission where the truth is known
	$(CARVANA) score --run runs/$(NAME) --data $(DATA)
	$(if $(TRUTH),$(MAKE) --no-print-directory $(SUBMISSION))
	$(if $(TRUTH),$(CARVANA) score $(SUBMISSION) --truth $(TRUTH))

report: $(TRAINED) ## write runs/NAME/report.html: figures, plot, masks, recipe
	$(CARVANA) report --run runs/$(NAME) --data $(DATA)

look: $(READY) ## draw training samples into look.png
	$(CARVANA) look $(SETTINGS) --out look.png
cutout: $(READY) ## cut the cars of PHOTOS out into cutouts/, using shipped weights (WEIGHTS=sharp)
	$(if $(PHOTOS),,$(error name the photographs: make cutout PHOTOS="a.jpg b.jpg"))
	$(CARVANA) cutout $(PHOTOS) --weights $(WEIGHTS) --out cutouts

export: .venv/export $(TRAINED) ## write the run for FORMAT=onnx, litert, openvino or saved_model
	$(CARVANA) export --run runs/$(NAME) --data $(DATA) --format $(FORMAT) \
		--out exports/$(NAME)-$(FORMAT) $(ARGS)

demo: $(READY) ## the whole pipeline without a Kaggle account, on rendered cars
	$(CARVANA) demo --data $(DATA)
cluster-demo: .venv/cluster ## predict by two workers of this machine, and compare with one process
	sh scripts/cluster_demo.sh $(DATA)/cluster-demo $(WEIGHTS)
.venv/export .venv/cluster: $(READY) # the extra of that name
	.venv/bin/pip install --quiet --constraint requirements.txt --editable '.[$(@F)]'
	@touch $@

test: $(READY) ## run the tests, offline
	.venv/bin/pytest --numprocesses 2 $(ARGS)
test-oldest: .venv-oldest/ready-$(VERSION) ## test the oldest versions allowed (PYTHON=python3.11)
	.venv-oldest/bin/pytest $(ARGS)
.venv-oldest/ready-$(VERSION): pyproject.toml
	@$(PYTHON) scripts/environment.py .venv-oldest

bench: $(READY) ## measure speed-ups over a naive baseline (an idle machine, minutes)
	.venv/bin/python benchmarks/bench.py --data $(DATA) $(ARGS)

lint: $(READY) ## check style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

wheel: $(READY) ## build the package into dist/
	rm -rf build dist/carvana-*.whl
	.venv/bin/pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## delete what can be made again in minutes: caches and what the demos made
	$(PYTHON) scripts/clean.py $(DATA)
clean-runs: ## list all runs and submissions, and delete them if you say so
	@$(PYTHON) scripts/clean.py $(DATA) --runs
