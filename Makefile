# Each target is one line around `python -m <module> --config FILE [a.b=value ...]`.
#   CONFIG=file.yaml         another configuration
#   SET="a.b=value c=[x,y]"  overrides, parsed as YAML
#   RANKS=2                  processes of `features` and `finetune-e2e`: a GPU each, or the CPU
#   NODES=2 NODE_RANK=0 RENDEZVOUS=host:29500   the same command on every machine of several (docs/cluster.md)
#   ENGINE=slurm             what starts those of `features`, and a sweep's fine-tunes: torchrun, local, slurm, ray (docs/cluster.md)
#   REMOTE=s3://bucket/name  where `features` puts each unit as soon as it is complete (docs/cluster.md)
#   TORCH_INDEX=url          other builds of the same torch, e.g. for a V100 (no CUDA 13 support):
#                            make setup TORCH_INDEX=https://download.pytorch.org/whl/cu126

export PYTHONPATH := $(CURDIR)
export RANKS ?= 2
PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
DOCS_READY := .venv-docs/.ready
READY_APP := .venv/.ready-app
READY_CLUSTER := .venv/.ready-cluster
READY_SLOW := .venv/.ready-slow
READY_S3 := .venv/.ready-s3
# Text as YAML, whatever it holds: braces, colons, "#".
text = '$(subst ','',$(1))'

# The shell would take what follows ` #` for a comment, and another folder would be read.
HASH := \#
ifneq ($(and $(filter $(HASH)%,$(SET)),$(if $(findstring ',$(SET))$(findstring ",$(SET)),,unquoted)),)
$(error quote the value that has a $(HASH) in it: SET="corpus='data/take $(HASH)3/metadata.csv'")
endif

# What each target may be given beside CONFIG, SET and the like. Anything else would be ignored without a word:
# `make train-fusion seeds=[7]` would train the default seeds, and replace their run.
KNOWN := CONFIG SET RANKS PYTHON TORCH_INDEX READY READY_APP READY_CLUSTER READY_S3
ACROSS := NODES NODE_RANK RENDEZVOUS
KNOWN_data := ACTORS KIND
KNOWN_corpus := ROOT OUT LAYOUT PATTERN CSV LABEL SPEAKER
KNOWN_features := ENGINE REMOTE $(ACROSS)
KNOWN_finetune-e2e := $(ACROSS)
KNOWN_sweep := ENGINE
KNOWN_preview := CLIP
KNOWN_report := RUN
KNOWN_predict := CLIP RUN
KNOWN_app := RUN
KNOWN_bench := BENCH CLIPS
KNOWN_test := SHARED
KNOWN_test-slow := SHARED
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out $(KNOWN) $(foreach goal,$(MAKECMDGOALS),$(KNOWN_$(goal))),$(GIVEN))
ifneq ($(UNKNOWN),)
$(error $(MAKECMDGOALS) does not take $(firstword $(UNKNOWN))=...; settings go into SET="$(firstword $(UNKNOWN))=..."; it takes $(KNOWN) $(foreach goal,$(MAKECMDGOALS),$(KNOWN_$(goal))))
endif

.PHONY: help setup demo data corpus preview features train-fusion sweep report compare enrolment finetune-e2e robustness-table predict app doctor test test-slow bench lint docs
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv from requirements.txt (about 6 GB); TORCH_INDEX=... for other torch builds

$(READY):
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON); install Python 3.11 or 3.12, or: make setup PYTHON=/path/to/python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || { echo "error: $$($(PYTHON) --version) is not supported; install Python 3.11 or 3.12, or: make setup PYTHON=/path/to/python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: this Python lacks venv; on Debian or Ubuntu: apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.txt
	@touch $(READY)

demo: | $(READY) ## the whole pipeline on a corpus it synthesises itself; CPU, under 5 minutes
	$(PY) -m fuse.demo --config $(or $(CONFIG),configs/demo/demo.yaml) $(SET)

data: | $(READY) ## RAVDESS from Zenodo: ACTORS=1,2,23 KIND=video|audio; then data/metadata.csv
	$(PY) -m extract.download --config $(or $(CONFIG),configs/ravdess/data.yaml) $(if $(ACTORS),"actors=[$(ACTORS)]") $(if $(KIND),kind=$(KIND)) $(SET)

corpus: | $(READY) ## metadata for a folder of clips that is already there: ROOT=dir LAYOUT=... PATTERN=... CSV=... OUT=metadata.csv
	$(PY) -m extract.corpus --config $(or $(CONFIG),configs/ravdess/corpus.yaml) $(if $(ROOT),"root=$(call text,$(ROOT))") $(if $(OUT),"out=$(call text,$(OUT))") $(if $(LAYOUT),layout=$(LAYOUT)) $(if $(PATTERN),"pattern=$(call text,$(PATTERN))") $(if $(CSV),"csv=$(call text,$(CSV))") $(if $(LABEL),"columns.label=$(call text,$(LABEL))") $(if $(SPEAKER),"columns.speaker=$(call text,$(SPEAKER))") $(SET)

preview: | $(READY) ## a clip under every condition, to look at and listen to: CLIP=x.mp4
	$(PY) -m extract.preview --config $(or $(CONFIG),configs/demo/preview.yaml) $(if $(CLIP),"clip=$(CLIP)") $(SET)

features: $(if $(ENGINE:torchrun=),$(READY_CLUSTER)) $(if $(REMOTE),$(READY_S3)) | $(READY) ## stage one: features of every clip under every condition, on RANKS ranks, by ENGINE
	$(PY) -m extract --config $(or $(CONFIG),configs/ravdess/features.yaml) $(if $(ENGINE),engine.name=$(ENGINE)) $(if $(REMOTE),"remote=$(REMOTE)") $(SET)

train-fusion: | $(READY) ## stage two: fusion heads on cached features
	$(PY) -m fuse.train --config $(or $(CONFIG),configs/ravdess/fusion.yaml) $(SET)

finetune-e2e: | $(READY) ## encoders and head together, DDP on RANKS ranks
	$(PY) -m fuse.finetune --config $(or $(CONFIG),configs/ravdess/finetune.yaml) $(SET)

sweep: $(if $(ENGINE:torchrun=),$(READY_CLUSTER)) | $(READY) ## every configuration of a grid, every fold and seed: CONFIG=configs/sweeps/heads.yaml
	$(PY) -m fuse.sweep --config $(or $(CONFIG),configs/sweeps/modalities.yaml) $(if $(ENGINE),engine.name=$(ENGINE)) $(SET)

report: | $(READY) ## one HTML file about runs, to click through: RUN="outputs/fusion outputs/other"
	$(PY) -m fuse.studies.report --config $(or $(CONFIG),configs/ravdess/studies/report.yaml) $(if $(RUN),"run=$(RUN)") $(SET)

compare: | $(READY) ## is one run better than another? SET="pairs=[[outputs/a,outputs/b]]", paired by speaker
	$(PY) -m fuse.studies.compare --config $(or $(CONFIG),configs/ravdess/studies/compare.yaml) $(SET)

enrolment: | $(READY) ## how many clips of a speaker adaptation needs: for a run with standardise=speaker
	$(PY) -m fuse.studies.enrolment --config $(or $(CONFIG),configs/ravdess/studies/enrolment.yaml) $(SET)

robustness-table: | $(READY) ## what noise, occlusion and missing modalities cost
	$(PY) -m fuse.robustness --config $(or $(CONFIG),configs/ravdess/robustness.yaml) $(SET)

predict: | $(READY) ## what a trained run says of a clip, a folder or a metadata.csv: CLIP=x.mp4 RUN=outputs/fusion
	$(PY) -m fuse.predict --config $(or $(CONFIG),configs/predict.yaml) $(if $(CLIP),"clip=$(call text,$(CLIP))") $(if $(RUN),"run=$(call text,$(RUN))") $(SET)

app: $(READY_APP) ## a page on this machine to try a run on clips, recorded ones too: RUN=outputs/fusion
	$(PY) -m fuse.predict.app --config $(or $(CONFIG),configs/predict.yaml) $(if $(RUN),"run=$(call text,$(RUN))") $(SET)

$(READY_APP): requirements-app.txt | $(READY)
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps -r requirements-app.txt
	@touch $(READY_APP)

$(READY_CLUSTER): requirements-cluster.txt | $(READY)
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps -r requirements-cluster.txt
	@touch $(READY_CLUSTER)

$(READY_S3): requirements-s3.txt | $(READY)
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps -r requirements-s3.txt
	@touch $(READY_S3)

# A server that speaks S3 is for tests alone, and may bring what it likes as long as no pin moves.
$(READY_SLOW): $(READY_S3) $(READY_CLUSTER)
	$(PY) -m pip install --disable-pip-version-check --quiet -c requirements.txt "moto[server]==5.2.1"
	@touch $(READY_SLOW)

doctor: | $(READY) ## will it run here? torch and GPU, disk, decoders, models, memory, each with its remedy
	$(PY) -m configs.command.doctor --config $(or $(CONFIG),configs/ravdess/features.yaml) $(SET)

test: | $(READY) ## every test that is not slow (under 10 minutes on 2 cores)
	$(PY) -m pytest -n 2 --dist loadfile

test-slow: | $(READY) ## all tests, the long ones too, with what engines and object stores need
	@$(MAKE) --no-print-directory $(READY_SLOW) || echo "note: tests that need what could not be installed are skipped"
	$(PY) -m pytest -n 2 --dist loadfile -m ""

bench: | $(READY) ## what speed and memory are, as ratios side by side (minutes); BENCH=stores for one of them; BENCH=scale CLIPS=1000000
	$(PY) -m tests.benchmarks $(BENCH) $(if $(CLIPS),--clips $(CLIPS))

lint: | $(READY) ## ruff and mypy --strict
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

docs: | $(DOCS_READY) ## the pages of docs/ and the docstrings as a site (minutes): outputs/site/index.html
	.venv-docs/bin/sphinx-build -q -W --keep-going -j auto -d outputs/site/.doctrees -b html docs outputs/site

# An environment of its own: Sphinx reads the code and does not import it.
$(DOCS_READY): docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --disable-pip-version-check --quiet -r docs/requirements.txt
	@touch $(DOCS_READY)
