"""Clips that lack a modality at random: which ones, at which rate.

Each modality of each clip has one random number, keyed to the clip and the modality alone; it is missing at every rate
above that number. So what is missing at 10 % is missing at 20 %, the same for every run, fold and seed, and a curve
over rates is not one over different clips. Modalities go missing independently of each other; a clip that is left with
none counts as well, and is answered by what stands in for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cache.features.table import FeatureTable

MISSING = "missing"


@dataclass(frozen=True)
class Missing:
    """A scenario: modality to the per cent of clips that lack it.

    Attributes:
        name: `missing-30` (every modality alike), `missing-audio-30` (that one alone), or several of the latter
            joined by `+`: what stands in the place of a condition in predictions and tables.
    """

    name: str
    percent: Mapping[str, int]

    @classmethod
    def equal(cls, modalities: Sequence[str], percent: int) -> Missing:
        """Every modality at one rate."""
        return cls(f"{MISSING}-{percent}", dict.fromkeys(modalities, percent))

    @classmethod
    def unequal(cls, percent: Mapping[str, int]) -> Missing:
        """Each modality at a rate of its own; those that are not named are always there."""
        return cls("+".join(f"{MISSING}-{name}-{rate}" for name, rate in percent.items()), dict(percent))

    def withheld(self, table: FeatureTable) -> FeatureTable:
        """The table without the rows that this scenario takes."""
        features, present = dict(table.features), dict(table.present)
        for name, rate in self.percent.items():
            gone_N = missing_clips([clip.clip_id for clip in table.clips], name, rate)
            features[name] = np.where(gone_N[:, None], np.float32(np.nan), features[name])
            present[name] = present[name] & ~gone_N
        return replace(table, features=features, present=present, condition=self.name)


def scenarios(wanted: Sequence[int | Mapping[str, int]], modalities: Sequence[str]) -> list[Missing]:
    """What a list of rates asks of a run with these modalities.

    A rate in per cent stands for all modalities at that rate, and for each of them alone where there are several; a
    mapping for one scenario, which a run that lacks one of its modalities does not have.
    """
    rates = [one for one in wanted if isinstance(one, int)]
    mixes = [one for one in wanted if not isinstance(one, int) and set(one) <= set(modalities)]
    alone = modalities if len(modalities) > 1 else ()
    return [
        *(Missing.equal(modalities, rate) for rate in rates),
        *(Missing.unequal({name: rate}) for name in alone for rate in rates),
        *(Missing.unequal(mix) for mix in mixes),
    ]


def missing_clips(clip_ids: Sequence[str], modality: str, percent: int) -> npt.NDArray[np.bool_]:
    """Which of these clips lack the modality, at this rate in per cent: of shape (N,)."""
    drawn = [np.random.default_rng([*modality.encode(), 0, *clip_id.encode()]).random() for clip_id in clip_ids]
    return np.array(drawn, np.float64) < percent / 100
