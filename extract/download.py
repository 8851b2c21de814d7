"""`python -m extract.download`: the command of `extract.corpora.download`."""

import sys

from configs.command.entry import main
from configs.schema.corpora import DataConfig
from extract.corpora.download import run

if __name__ == "__main__":
    sys.exit(main(DataConfig, run, "Download RAVDESS from Zenodo and write its metadata.csv."))
