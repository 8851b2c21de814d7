"""Late fusion by how sure each modality is: what is fitted after training, and the rule that it is held to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fuse.model.fusion import FusionModel, ModelSettings
from fuse.model.heads.base import NEVER
from fuse.model.heads.catalogue import UNIMODAL
from fuse.model.heads.reliable import FITTED, distance_share, known_classes, reliability
from fuse.scores.metrics import uar
from fuse.stack.job import Job
from fuse.stack.rows import CachedRows
from fuse.stack.stack import Schedule, fit_stack

WIDTHS = {"audio": 60, "face": 20}
CLASSES, CLIPS = 4, 3000
TRAIN, VALIDATION, TEST = range(300), range(300, 450), range(450, CLIPS)
JOB = Job(tuple(TRAIN), tuple(VALIDATION), augment=0.5, lr=3e-3)
# UAR, in hundredths.
POINT = 0.01


def signals(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows (N, D) of clips whose sound says more of their class than their face, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.arange(CLIPS) % CLASSES
    scale_D = torch.tensor([0.55] * WIDTHS["audio"] + [0.35] * WIDTHS["face"])
    centres_CD = torch.randn(CLASSES, sum(WIDTHS.values()), generator=generator) * scale_D
    return centres_CD[labels_N] + torch.randn(CLIPS, len(scale_D), generator=generator) * 1.5, labels_N


def damaged(rows_ND: Tensor, kind: int, level: float) -> Tensor:
    """Sound mixed with a disturbance in directions of its own kind, which looks like some class or other."""
    generator = torch.Generator().manual_seed(100 + kind)
    width = WIDTHS["audio"]
    basis_kD = torch.randn(6, width, generator=generator)
    worse_ND = rows_ND.clone()
    worse_ND[:, :width] += level * torch.randn(len(rows_ND), 6, generator=generator) @ basis_kD
    return worse_ND


def cached(absent: bool = False) -> CachedRows:
    rows_ND, labels_N = signals()
    trained = torch.stack([damaged(rows_ND, 0, 0.5)[:, :60], damaged(rows_ND, 0, 1.0)[:, :60]])
    variants = {"audio": {"audio": (trained, torch.zeros(2, CLIPS, dtype=torch.bool))}}
    generator = torch.Generator().manual_seed(5)
    absent_Nm = torch.rand(CLIPS, 2, generator=generator) < 0.2 if absent else None
    return CachedRows(WIDTHS, rows_ND, absent_Nm, labels_N, variants)


def by_modality(rows_ND: Tensor) -> dict[str, Tensor]:
    return {"audio": rows_ND[:, :60], "face": rows_ND[:, 60:]}


def trained(head: str, rows: CachedRows, unimodal: str = "lda") -> FusionModel:
    settings = ModelSettings(head, WIDTHS, CLASSES, hidden=16, dropout=0.0, unimodal=unimodal)
    return fit_stack(settings, rows, [JOB], Schedule(10, 50))[0].model


def score(model: FusionModel, rows_ND: Tensor, *given: str) -> float:
    rows = {
        name: values if not given or name in given else torch.full_like(values, torch.nan)
        for name, values in by_modality(rows_ND[list(TEST)]).items()
    }
    predicted_N = model(rows).argmax(1)
    return uar(signals()[1][list(TEST)].numpy(), predicted_N.numpy())


def test_fusion_is_never_much_below_its_best_modality_under_what_it_never_met() -> None:
    """Trained on one kind of disturbance; another as strong as one likes must not pull it below the face alone."""
    model, plain = trained("late-reliable", cached()), trained("lda", cached())
    rows_ND, _ = signals()
    assert score(model, rows_ND) >= score(plain, rows_ND) - POINT / 2
    harmed = 0
    for level in (0.5, 1.0, 2.0, 4.0, 8.0, 30.0):
        there_ND = damaged(rows_ND, 1, level)
        alone = [score(model, there_ND, name) for name in WIDTHS]
        assert score(model, there_ND) >= max(alone) - POINT
        harmed += score(plain, there_ND) < max(alone) - POINT
    # The disturbance is one that the plain head does not survive.
    assert harmed >= 2


@pytest.mark.parametrize("unimodal", UNIMODAL)
def test_temperatures_are_those_of_the_least_log_loss_for_heads_of_any_kind(unimodal: str) -> None:
    rows = cached()
    model = trained("late-calibrated", rows, unimodal)
    plain_ND, _ = signals()
    conditions = [plain_ND, damaged(plain_ND, 0, 0.5), damaged(plain_ND, 0, 1.0)]
    labels = rows.labels_N[list(VALIDATION)].repeat(3)
    own_NKC = torch.cat(
        [model.outputs(by_modality(one[list(VALIDATION)])).taught_MBKC[0] for one in conditions]
    ).detach()
    found = float(model.weights[f"audio{FITTED}log_temperature"].detach())
    best = min(np.linspace(-4, 4, 801), key=lambda t: float(cross_entropy(own_NKC[:, 0] * np.exp(-t), labels)))
    assert found == pytest.approx(best, abs=0.01)


def test_the_decision_is_the_sum_of_votes_over_temperatures() -> None:
    model = trained("late-calibrated", cached())
    given = by_modality(signals()[0][:9])
    outputs = model.outputs(given)
    log_temperatures = [float(model.weights[f"{name}{FITTED}log_temperature"]) for name in WIDTHS]
    sharpness_K1 = torch.tensor(log_temperatures).neg().exp()[:, None]
    torch.testing.assert_close(outputs.logits_MBC[0], (outputs.taught_MBKC[0] * sharpness_K1).sum(1))


@pytest.mark.parametrize("head", ["late-calibrated", "late-reliable"])
def test_an_absent_modality_does_not_vote(head: str) -> None:
    model = trained(head, cached(absent=True))
    given = by_modality(signals()[0][:9])
    alone = model({**given, "audio": torch.full_like(given["audio"], torch.nan)})
    other = {**given, "audio": given["audio"] * 0 + 7}
    outputs = model.outputs(other)
    assert not torch.allclose(outputs.logits_MBC[0], alone)
    face = float(model.weights[f"face{FITTED}log_temperature"])
    votes = model.outputs(given).taught_MBKC[0, :, 1] * np.exp(-face)
    torch.testing.assert_close(alone.argmax(1), votes.argmax(1))
    assert torch.isfinite(model({name: torch.full_like(one, torch.nan) for name, one in given.items()})).all()


def lacking(lacks: dict[str, int], unimodal: str, head: str = "late-calibrated") -> FusionModel:
    """Trained where no clip of one class has that modality."""
    rows_ND, labels_N = signals()
    absent_Nm = torch.stack([labels_N == lacks.get(name, -1) for name in WIDTHS], dim=1)
    return trained(head, CachedRows(WIDTHS, rows_ND, absent_Nm, labels_N, {}), unimodal)


@pytest.mark.parametrize("head", ["late-calibrated", "late-reliable"])
@pytest.mark.parametrize("unimodal", ["lda", "logistic", "mlp"])
def test_a_modality_has_no_say_in_a_class_that_it_knows_nothing_of(head: str, unimodal: str) -> None:
    """It vetoed the class: clips that the face recognised were taken for another emotion, every single one."""
    model = lacking({"audio": 3}, unimodal, head)
    rows_ND, labels_N = signals()
    of_3_ND = rows_ND[[clip for clip in TEST if labels_N[clip] == 3]]
    given = by_modality(of_3_ND)
    joined_NC = model(given).softmax(1)
    assert float((joined_NC.argmax(1) == 3).double().mean()) > 1 / CLASSES
    # By the voice alone the class keeps its prior probability, however sure the voice is of one that it knows.
    voice_NC = model({**given, "face": torch.full_like(given["face"], torch.nan)}).softmax(1)
    torch.testing.assert_close(voice_NC[:, 3], torch.full_like(voice_NC[:, 3], 1 / CLASSES))
    assert not bool((voice_NC.argmax(1) == 3).any())
    # The loss of training clips without a voice was a billion.
    assert float(model.outputs(given).taught_MBKC.abs().max()) < 1000


@pytest.mark.parametrize("unimodal", ["lda", "mlp"])
def test_a_class_that_no_modality_knows_is_never_predicted_far_from_training_either(unimodal: str) -> None:
    """With a weight of 0 the logit of such a class was that of all others."""
    model = lacking({"audio": 3, "face": 3}, unimodal, "late-reliable")
    for scale in (1.0, 1e6, 1e25):
        assert float(model(by_modality(signals()[0][:200] * scale)).softmax(1)[:, 3].max()) == 0


def test_classes_of_features_that_hardly_vary_are_known() -> None:
    """Their solved biases pass -1e9: every class counted as never seen, and the fusion answered NaN."""
    bias_MC = torch.tensor([[-3e9, -2e10, -7e8], [0.4, NEVER, NEVER * (1 + 1e-4)], [torch.nan, 0.0, 0.0]])
    assert known_classes({"a_out_bias": bias_MC}, "a").tolist() == [[True] * 3, [True, False, False], [True] * 3]


def test_temperatures_are_fitted_to_the_classes_that_a_modality_knows() -> None:
    """Validation clips of a class that the voice never met taught a trained head that it is worth little."""
    rows_ND, labels_N = signals()
    absent_Nm = torch.zeros(CLIPS, 2, dtype=torch.bool)
    absent_Nm[list(TRAIN), 0] = labels_N[list(TRAIN)] == 3
    model = trained("late-calibrated", CachedRows(WIDTHS, rows_ND, absent_Nm, labels_N, {}), "mlp")
    known = [clip for clip in VALIDATION if labels_N[clip] != 3]
    own_NC = model.outputs(by_modality(rows_ND[known])).taught_MBKC[0, :, 0, :3].detach()
    best = min(np.linspace(-4, 4, 801), key=lambda t: float(cross_entropy(own_NC * np.exp(-t), labels_N[known])))
    assert float(model.weights[f"audio{FITTED}log_temperature"].detach()) == pytest.approx(best, abs=0.01)


def test_a_vote_weighs_less_the_farther_its_row_lies_and_nothing_jumps() -> None:
    share = torch.linspace(0, 50, 5001)
    weight = reliability(share)
    assert weight[0] == 1
    assert bool((weight.diff() <= 0).all())
    assert float(weight.diff().abs().max()) < 0.02
    # Twice the limit is four times the squared limit.
    assert float(reliability(torch.tensor([4.0]))) == pytest.approx(0.25, abs=0.001)
    assert float(reliability(torch.tensor([torch.inf]))) == 0


def test_nine_in_ten_validation_rows_lie_within_the_limit_and_others_do_not() -> None:
    model = trained("late-reliable", cached())
    plain_ND, _ = signals()
    mean_D, scale_D = model.standardiser.side_by_side()
    weights = {name: value.detach()[None] for name, value in model.weights.items()}

    def shares(rows_ND: Tensor, index: range) -> Tensor:
        standardised = ((rows_ND[list(index)] - mean_D) / scale_D)[:, :60]
        return distance_share(weights, "audio", standardised[None])[0]

    known = [plain_ND, damaged(plain_ND, 0, 0.5), damaged(plain_ND, 0, 1.0)]
    parts = {part: weights[f"audio{FITTED}{part}"] for part in ("gain", "rest", "plain")}
    # By each of the two distances; by the larger of them a few less.
    for left_out in (("plain",), ("gain", "rest")):
        weights |= {f"audio{FITTED}{part}": parts[part] * (part not in left_out) for part in parts}
        within = torch.cat([shares(one, VALIDATION) for one in known]) <= 1
        assert float(within.double().mean()) == pytest.approx(0.9, abs=0.01)
        assert bool((shares(damaged(plain_ND, 1, 30.0), TEST) > 1).all())


def test_a_shift_along_the_directions_in_which_training_rows_vary_is_seen() -> None:
    """A quarter of a picture hidden hardly was: along these directions a Mahalanobis distance counts little."""
    rows_ND, labels_N = signals()
    wide_ND = rows_ND.clone()
    # Three columns that vary ten times as much as the others, before they are standardised by no one.
    wide_ND[:, :3] *= 10
    rows = CachedRows(WIDTHS, wide_ND, None, labels_N, {})
    settings = ModelSettings("late-reliable", WIDTHS, CLASSES, hidden=16, dropout=0.0)
    job = replace(JOB, augment=0.0, standardise=False)
    model = fit_stack(settings, rows, [job], Schedule(1, 50))[0].model
    weights = {name: value.detach()[None] for name, value in model.weights.items()}
    shifted_ND = wide_ND[list(TEST), :60].clone()
    shifted_ND[:, :3] += 60.0
    share_B = distance_share(weights, "audio", shifted_ND[None])[0]
    mahalanobis_B = distance_share(weights | {f"audio{FITTED}plain": torch.zeros(1)}, "audio", shifted_ND[None])[0]
    assert float(share_B.median()) > 2 * float(mahalanobis_B.median())
    assert float(reliability(share_B).median()) < 0.2


def test_without_variants_and_with_mixed_layers_it_is_fitted_as_well() -> None:
    rows = replace(cached(), variants={})
    settings = ModelSettings("late-reliable", WIDTHS, CLASSES, hidden=16, mixed={"audio": 3})
    model = fit_stack(settings, rows, [JOB, replace(JOB, seed=1)], Schedule(2, 50))[1].model
    assert model.weights[f"audio{FITTED}mean"].shape == (20,)
    assert float(model.weights[f"face{FITTED}rest"]) > 0


def test_a_kind_of_unimodal_head_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unimodal: no such head .*'ldb' \(did you mean lda\?\); known"):
        ModelSettings("late-reliable", WIDTHS, CLASSES, unimodal="ldb")
    with pytest.raises(ValueError, match="late-reliable"):
        ModelSettings("late-calibrated", WIDTHS, CLASSES, unimodal="late-reliable")


def test_a_clip_weighs_the_same_alone_and_among_others_where_features_hardly_vary() -> None:
    """In float32 the distance was a difference of large numbers: `make predict` was 0.003 off predictions.csv."""
    rows = cached()
    generator = torch.Generator().manual_seed(9)
    mixing_DD = torch.randn(20, 20, generator=generator)
    narrow_ND = rows.rows_ND.clone()
    # 60 columns of 20 that vary, and next to nothing beside these.
    narrow_ND[:, :60] = narrow_ND[:, :20] @ torch.cat([mixing_DD, mixing_DD.T, mixing_DD @ mixing_DD], dim=1)
    narrow_ND[:, :60] += 0.01 * torch.randn(CLIPS, 60, generator=generator)
    model = trained("late-reliable", replace(rows, rows_ND=narrow_ND, variants={}))
    given = {name: values[list(TEST)] for name, values in by_modality(narrow_ND).items()}
    together_NC = model(given).softmax(1)
    alone_NC = torch.cat([model({name: v[[clip]] for name, v in given.items()}).softmax(1) for clip in range(20)])
    torch.testing.assert_close(alone_NC, together_NC[:20], atol=1e-5, rtol=0)
