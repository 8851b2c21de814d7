"""`python -m extract.download`: the command of `extract.corpora.download`."""

import sys

from configs.loader import main
from configs.schema.data import DataConfig
from extract.corpora.download import run

if __name__ == "__main__":
    sys.exit(main(DataConfig, run, "Download RAVDESS from Zenodo and write its metadata.csv."))
