"""`python -m extract.corpus`: the command of `extract.corpora.ravdess`."""

import sys

from configs.command.entry import main
from configs.schema.corpora import CorpusConfig
from extract.corpora.ravdess import run

if __name__ == "__main__":
    sys.exit(main(CorpusConfig, run, "Write metadata.csv for a folder of RAVDESS clips."))
