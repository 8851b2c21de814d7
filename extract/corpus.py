"""`python -m extract.corpus`: the command of `extract.corpora.command`."""

import sys

from configs.command.entry import main
from configs.schema.corpora import CorpusConfig
from extract.corpora.command import run

if __name__ == "__main__":
    sys.exit(main(CorpusConfig, run, "Write metadata.csv for a folder of clips."))
