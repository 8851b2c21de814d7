"""`python -m extract.random_encoders`: the command of `extract.corpora.synthetic.encoders`."""

import sys

from configs.command.entry import main
from configs.schema.demo import RandomEncodersConfig
from extract.corpora.synthetic.encoders import run

if __name__ == "__main__":
    sys.exit(main(RandomEncodersConfig, run, "Write small random encoders of the true architectures."))
