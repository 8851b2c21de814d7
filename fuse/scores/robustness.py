"""What corruption costs, in the field's own measures. Pure functions of scores and errors, as shares.

An error is 1 minus a score. Published tables take top-1 accuracy, over classes of equally many images; here the score
is the UAR, which is the same where classes are equal and does not reward guessing the largest one where they are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fuse.scores.metrics import seeds_of
from fuse.scores.predictions import Predictions


def relative_drop(clean: float, score: float) -> float | None:
    """The share of the clean score that is lost; below 0 where there is a gain, None where nothing could be lost."""
    return (clean - score) / clean if clean else None


def corruption_error(errors: Sequence[float], baseline: Sequence[float]) -> float | None:
    """CE: the errors at all levels of one corruption, summed, over those of a baseline; 1 is as good as that.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv 1903.12261, section 4.1, where the baseline is AlexNet. The mean of CE over corruptions is mCE.

    Returns:
        None where the baseline makes no error.

    Raises:
        ValueError: the two were not tested at the same levels.
    """
    _refuse_other_levels(errors, baseline)
    return sum(errors) / sum(baseline) if sum(baseline) > 0 else None


def relative_corruption_error(
    errors: Sequence[float], clean_error: float, baseline: Sequence[float], baseline_clean_error: float
) -> float | None:
    """Relative CE: as CE, of how much each error exceeds the error on clean clips.

    The same section of the same paper. It asks what the corruption takes, whatever was there to take.

    Returns:
        None where the corruption does not cost the baseline anything: it is no measure then.

    Raises:
        ValueError: the two were not tested at the same levels.
    """
    _refuse_other_levels(errors, baseline)
    lost = sum(baseline) - len(baseline) * baseline_clean_error
    return (sum(errors) - len(errors) * clean_error) / lost if lost > 0 else None


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that there are, as mCE over corruptions; None where there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def relative_robustness(scores: Sequence[float]) -> float:
    """The area under the curve of scores by severity, 0 to 1: the mean height of the curve.

    Liang et al., "MultiBench: Multiscale Benchmarks for Multimodal Representation Learning", NeurIPS 2021, arXiv
    2107.07502, as its code (eval_scripts/robustness.py) has it before it is scaled over methods: trapezoids over steps
    of equal width. Here the steps share a width of 1, so that areas over three and over ten levels can be compared.

    Args:
        scores: on clean clips, then at each level from the mildest to the most severe.

    Raises:
        ValueError: there is no level beside clean.
    """
    if len(scores) < 2:
        raise ValueError("an area under a curve needs a clean score and one at a level at least")
    return float(np.trapezoid(scores, dx=1 / (len(scores) - 1)))


def effective_robustness(scores: Sequence[float], baseline: Sequence[float]) -> float:
    """How far the scores at the levels lie above what the clean score let one expect, on average; as a share.

    The idea is that of Taori et al., "Measuring Robustness to Natural Distribution Shifts in Image Classification",
    NeurIPS 2020, arXiv 2007.00644, section 3: a model is effectively robust where it beats the accuracy under shift
    that ordinary models of its clean accuracy have. What one may expect is as in MultiBench (arXiv 2107.07502): the
    baseline's curve, moved so that it starts at this run's clean score. MultiBench sums over levels; this is the mean.

    Args:
        scores: on clean clips, then at each level; `baseline` alike, at the same levels.

    Raises:
        ValueError: the two were not tested at the same levels, or at none.
    """
    _refuse_other_levels(scores, baseline)
    if len(scores) < 2:
        raise ValueError("effective robustness needs a clean score and one at a level at least")
    expected = np.array(baseline) + (scores[0] - baseline[0])
    return float(np.mean((np.array(scores) - expected)[1:]))


def changed_share(first: Predictions, second: Predictions) -> float:
    """Share of clips whose predicted label is another one in the second evaluation, 0 to 1; seeds are averaged.

    The flip probability of ImageNet-P (arXiv 1903.12261, section 4.2) for a sequence of two. Clips that only one
    evaluation has are left out.

    Raises:
        ValueError: they have no clip in common.
    """
    shares = []
    for one, other in zip(seeds_of(first), seeds_of(second), strict=True):
        answers = dict(zip(other.clip_id.tolist(), other.predicted.tolist(), strict=True))
        pairs = zip(one.clip_id.tolist(), one.predicted.tolist(), strict=True)
        changed = [answers[clip] != predicted for clip, predicted in pairs if clip in answers]
        if not changed:
            raise ValueError("no clip is in both evaluations: nothing can have changed")
        shares.append(np.mean(changed))
    return float(np.mean(shares))


def guess_margin(clips_by_label: Sequence[int], errors: float = 2.0) -> float:
    """How far above chance the UAR of a guesser may lie: so many standard errors, as a share.

    A guesser is right in a clip with probability 1 / C, whatever its label, so that the recall of a label of n clips
    has the variance of a binomial share, and UAR that of the mean over the labels.

    Args:
        clips_by_label: clips of each label that there are clips of.
        errors: standard errors; 2 are exceeded in 2.3 % of guesses.
    """
    chance = 1 / len(clips_by_label)
    variance = sum(chance * (1 - chance) / clips for clips in clips_by_label) * chance**2
    return float(errors * np.sqrt(variance))


def _refuse_other_levels(own: Sequence[float], baseline: Sequence[float]) -> None:
    if len(own) != len(baseline):
        raise ValueError(
            f"{len(own)} levels against the baseline's {len(baseline)}; test both under the same conditions"
        )
