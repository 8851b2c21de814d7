"""`make doctor`: will stage one run here, with this configuration?

Exit codes: 0 nothing stops a run; 2 something does.
"""

from __future__ import annotations

import sys

from configs.command.doctor.checks import examine
from configs.command.doctor.machine import look
from configs.command.entry import main
from configs.command.launch import rank_count
from configs.schema.features import FeaturesConfig


def run(config: FeaturesConfig) -> int:
    """Look, judge and print, a line a finding and its remedy below it; returns the exit code."""
    ranks = rank_count()
    findings = examine(look(config), config, ranks)
    for one in findings:
        print(f"{one.level:5} {one.subject:9} {one.found}")
        if one.remedy:
            print(f"{'':15} -> {one.remedy}")
    counts = {level: sum(one.level == level for one in findings) for level in ("ok", "warn", "fail")}
    print(", ".join(f"{count} {level}" for level, count in counts.items()))
    return 2 if counts["fail"] else 0


if __name__ == "__main__":
    sys.exit(main(FeaturesConfig, run, "Will stage one run on this machine, with this configuration?"))
