"""torchrun as the launcher starts it: stopped by a signal it ends without a word, for the launcher has one to say."""

from __future__ import annotations

import logging
import os
import sys

# They warn that a signal came and is passed on, which is no news to who sent it. Errors are told.
TALKATIVE = ("torch.distributed.elastic.agent.server.api", "torch.distributed.elastic.multiprocessing.api")


def main() -> None:
    """Run torchrun with this process's arguments; ends the process."""
    # Here and not above: torch is never imported by importing this package.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.run import main as torchrun

    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        torchrun()
    except SignalException as signalled:
        # Its ranks are gone by now. An orderly end may hang in threads of the rendezvous.
        sys.stderr.flush()
        os._exit(128 + signalled.sigval)


if __name__ == "__main__":
    main()
