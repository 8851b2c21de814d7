"""The contract of every head, the standardiser, and what stands for absent modalities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cache.features.table import FeatureTable
from configs.schema.fusion import FusionConfig
from fuse.model.fusion import FusionModel, ModelSettings, Standardiser, draw_weights, forward
from fuse.model.heads.base import Outputs, Penalty, Rows
from fuse.model.heads.catalogue import HEADS, WEIGHTED
from fuse.model.heads.discriminant import solve_discriminant
from fuse.model.heads.layer import StackWeights, Weights, draw_linear, linear
from fuse.model.heads.logistic import solve_logistic
from fuse.model.heads.reliable import FITTED

WIDTHS = {"audio": 5, "video": 4, "face": 3}
HEADS_IN_STACK = 3
CLASSES = 8


def settings(name: str, **more: object) -> ModelSettings:
    return replace(ModelSettings(name, WIDTHS, CLASSES, hidden=16, dropout=0.0), **more)  # type: ignore[arg-type]


def rows(clips: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(clips, width, generator=generator) * 3 + 1 for name, width in WIDTHS.items()}


def stacked(one: ModelSettings) -> Weights:
    drawn = [draw_weights(one, seed) for seed in range(HEADS_IN_STACK)]
    return {name: torch.stack([weights[name] for weights in drawn]) for name in drawn[0]}


def run_stack(one: ModelSettings, weights: Weights, values_MBD: Tensor) -> Outputs:
    zero_MD = torch.zeros(len(values_MBD), values_MBD.shape[2])
    return forward(one, weights, Rows(values_MBD), zero_MD, lambda values: values)


@pytest.mark.parametrize("name", HEADS)
class TestEveryHead:
    @pytest.mark.parametrize("classes", [2, 3, 40, 1000])
    def test_returns_a_logit_per_class(self, name: str, classes: int) -> None:
        """Eight were written into the heads, whatever the corpus."""
        one = settings(name, classes=classes)
        outputs = run_stack(one, stacked(one), torch.randn(HEADS_IN_STACK, 6, sum(WIDTHS.values())))
        assert outputs.logits_MBC.shape == (HEADS_IN_STACK, 6, classes)
        assert outputs.taught_MBKC.shape[3] == classes
        assert FusionModel(one)(rows()).shape == (6, classes)

    def test_a_clip_does_not_depend_on_its_batch(self, name: str) -> None:
        model = FusionModel(settings(name))
        alone = model({key: values[2:3] for key, values in rows().items()})
        torch.testing.assert_close(model(rows())[2:3], alone)

    def test_uses_every_modality(self, name: str) -> None:
        model = FusionModel(settings(name))
        for modality in WIDTHS:
            changed = {**rows(), modality: rows()[modality] + 1}
            assert not torch.allclose(model(changed), model(rows()))

    @pytest.mark.parametrize("modality", WIDTHS)
    def test_takes_any_set_of_modalities(self, name: str, modality: str) -> None:
        model = FusionModel(settings(name, widths={modality: WIDTHS[modality]}))
        assert model({modality: rows()[modality]}).shape == (6, CLASSES)

    def test_loads_its_own_state(self, name: str) -> None:
        first = FusionModel(settings(name), draw_weights(settings(name), 1))
        second = FusionModel(settings(name))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(rows()), second(rows()))

    def test_a_head_computes_the_same_in_any_company(self, name: str) -> None:
        one = settings(name)
        weights, values_MBD = stacked(one), torch.randn(HEADS_IN_STACK, 7, sum(WIDTHS.values()))
        together = run_stack(one, weights, values_MBD)
        for head in range(HEADS_IN_STACK):
            own = {key: value[[head]] for key, value in weights.items()}
            alone = run_stack(one, own, values_MBD[[head]])
            torch.testing.assert_close(together.logits_MBC[head], alone.logits_MBC[0], atol=1e-6, rtol=1e-6)

    def test_nothing_of_another_head_reaches_it_not_even_nan(self, name: str) -> None:
        one = settings(name)
        weights, values_MBD = stacked(one), torch.randn(HEADS_IN_STACK, 7, sum(WIDTHS.values()))
        before = run_stack(one, weights, values_MBD).logits_MBC[0]
        broken = {key: value.clone() for key, value in weights.items()}
        for value in broken.values():
            value[1] = torch.nan
        after = run_stack(one, broken, values_MBD).logits_MBC
        assert torch.equal(before, after[0])
        assert after[1].isnan().all()

    def test_every_weight_learns(self, name: str) -> None:
        one = settings(name, mixed={"audio": 5}, missing="learned")
        weights = {key: value.requires_grad_() for key, value in stacked(one).items()}
        values_MBD = torch.randn(HEADS_IN_STACK, 7, sum(WIDTHS.values()))
        absent_MBm = torch.zeros(HEADS_IN_STACK, 7, len(WIDTHS), dtype=torch.bool)
        absent_MBm[:, :2, 0] = True
        zero_MD = torch.zeros(HEADS_IN_STACK, values_MBD.shape[2])
        outputs = forward(one, weights, Rows(values_MBD, absent_MBm), zero_MD, lambda values: values)
        log_MBKC = outputs.taught_MBKC.log_softmax(-1)
        # What is fitted on validation clips does not learn.
        learning = [weight for key, weight in weights.items() if FITTED not in key]
        gradients = torch.autograd.grad(log_MBKC[..., 0].sum(), learning)
        assert all(bool((gradient != 0).any()) for gradient in gradients)

    def test_gradients_are_the_derivatives(self, name: str) -> None:
        one = settings(name)
        drawn = {key: value.double() for key, value in stacked(one).items()}
        weights = {key: value.requires_grad_() for key, value in drawn.items() if FITTED not in key}
        values_MBD = torch.randn(HEADS_IN_STACK, 3, sum(WIDTHS.values()), dtype=torch.float64)

        def taught(*given: Tensor) -> Tensor:
            return run_stack(one, {**drawn, **dict(zip(weights, given, strict=True))}, values_MBD).taught_MBKC

        # What late-learned joins is cut off from the modalities' weights, as gradcheck would not expect.
        if name != "late-learned":
            assert torch.autograd.gradcheck(taught, tuple(weights.values()), fast_mode=True)
        plain = torch.autograd.grad(taught(*weights.values()).square().sum(), list(weights.values()))
        stack = StackWeights({**drawn, **weights})
        outputs = run_stack(one, stack, values_MBD).taught_MBKC
        learning = [stack[key] for key in weights]
        for own, other in zip(torch.autograd.grad(outputs.square().sum(), learning), plain, strict=True):
            torch.testing.assert_close(own, other)

    def test_says_what_its_last_layer_sees(self, name: str) -> None:
        assert FusionModel(settings(name)).fused(rows()).shape[0] == 6

    def test_decides_for_a_clip_without_anything(self, name: str) -> None:
        nothing = {key: torch.full_like(values, torch.nan) for key, values in rows().items()}
        assert torch.isfinite(FusionModel(settings(name))(nothing)).all()


def test_the_default_head_has_the_sizes_of_the_default_recipe() -> None:
    default = ModelSettings("mlp", {"audio": 768, "video": 768, "text": 768}, 8)
    shapes = {name: tuple(weight.shape) for name, weight in FusionModel(default).weights.items()}
    assert shapes == {"hidden_weight": (256, 2304), "hidden_bias": (256,), "out_weight": (8, 256), "out_bias": (8,)}


def test_unknown_head_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown head 'mpl' \(did you mean mlp\?\); known: mlp, linear, lda"):
        settings("mpl")


def test_a_choice_among_one_label_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two labels to choose among, not 1"):
        settings("mlp", classes=1)


def test_a_hidden_width_that_attention_cannot_split_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden=18: the head transformer needs a multiple of 4"):
        settings("transformer", hidden=18)


def test_late_fusion_averages_only_what_a_clip_has() -> None:
    one = settings("late-average")
    model = FusionModel(one)
    gap = {**rows(), "video": torch.full((6, 4), torch.nan)}
    alone = []
    for name in ("audio", "face"):
        own = {key: value for key, value in model.weights.items() if key.startswith(name)}
        alone.append(FusionModel(replace(one, widths={name: WIDTHS[name]}), own)({name: rows()[name]}))
    torch.testing.assert_close(model(gap), (alone[0] + alone[1]) / 2)


def test_learned_late_fusion_starts_as_the_average() -> None:
    average, learned = FusionModel(settings("late-average")), FusionModel(settings("late-learned"))
    torch.testing.assert_close(learned(rows()), average(rows()))


def test_learned_late_fusion_teaches_the_modalities_nothing() -> None:
    one = settings("late-learned")
    weights = {key: value.requires_grad_() for key, value in stacked(one).items()}
    decision = run_stack(one, weights, torch.randn(HEADS_IN_STACK, 4, 12)).logits_MBC.sum()
    decision.backward()  # type: ignore[no-untyped-call]
    taught = {key for key, value in weights.items() if value.grad is not None}
    assert taught == {"joined_weight", "joined_bias"}


def test_layers_are_mixed_by_a_softmax_that_starts_equal() -> None:
    model = FusionModel(ModelSettings("linear", {"audio": 6}, CLASSES, dropout=0.0, mixed={"audio": 3}))
    given = torch.randn(4, 6)
    layer = {key: model.weights[key] for key in ("out_weight", "out_bias")}
    plain = FusionModel(ModelSettings("linear", {"audio": 2}, CLASSES, dropout=0.0), layer)
    torch.testing.assert_close(model({"audio": given}), plain({"audio": given.reshape(4, 3, 2).mean(1)}))
    model.weights["audio_layers"].data = torch.tensor([0.0, 1000.0, 0.0])
    torch.testing.assert_close(model({"audio": given}), plain({"audio": given[:, 2:4]}))


@pytest.mark.parametrize("head", ["lda", "logistic", "late-calibrated", "late-reliable"])
def test_nothing_is_learned_beside_a_head_that_is_solved(head: str) -> None:
    """A mix of layers was their mean, and a learned row the mean row, without a word."""
    features, present = {"audio": np.zeros((4, 6), np.float32)}, {"audio": np.ones(4, np.bool_)}
    plain = FeatureTable((), features, present, (), False, "clean", label_names=("a", "b"))
    mixed, config = replace(plain, mixed={"audio": 3}), FusionConfig("x.csv", head=head)
    with pytest.raises(ValueError, match=r"layers=mix is learned by .* solved without any; choose mean, .*=mlp$"):
        ModelSettings.of(config, mixed)
    with pytest.raises(ValueError, match=r"missing=learned is learned by .*; choose mean or zero, or .*=mlp$"):
        ModelSettings.of(replace(config, missing="learned"), plain)
    assert ModelSettings.of(config, plain).head == head
    trained = replace(config, head="mlp") if head not in WEIGHTED else replace(config, unimodal="mlp")
    assert ModelSettings.of(replace(trained, missing="learned"), mixed).mixed == {"audio": 3}


@pytest.mark.parametrize("missing", ["mean", "zero", "learned"])
def test_what_stands_for_an_absent_modality(missing: str) -> None:
    model = FusionModel(settings("linear", missing=missing))
    model.standardiser.fit(rows(50))
    if missing == "learned":
        model.weights["missing"].data = torch.arange(12.0)
    gap = {**rows(), "video": torch.full((6, 4), torch.nan)}
    mean, scale = model.standardiser.mean_["video"], model.standardiser.scale_["video"]
    stand_in = {"mean": mean, "zero": torch.zeros(4), "learned": mean + scale * torch.arange(12.0)[5:9]}[missing]
    torch.testing.assert_close(model(gap), model({**rows(), "video": stand_in.expand(6, 4)}))


def test_standardised_training_rows_have_mean_0_and_sd_1() -> None:
    mean_D, scale_D = Standardiser(WIDTHS).fit(rows(50)).side_by_side()
    values = (torch.cat(list(rows(50).values()), dim=1) - mean_D) / scale_D
    torch.testing.assert_close(values.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(0, unbiased=False), torch.ones(12), atol=1e-5, rtol=0)


def test_absent_rows_do_not_count() -> None:
    given = rows(50)
    with_gap = {**given, "face": given["face"].clone()}
    with_gap["face"][10:20] = torch.nan
    kept = torch.cat([given["face"][:10], given["face"][20:]])
    torch.testing.assert_close(Standardiser(WIDTHS).fit(with_gap).mean_["face"], kept.mean(0))


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    mean_D, scale_D = Standardiser({"audio": 5}).fit({"audio": torch.full((4, 5), 2.0)}).side_by_side()
    assert torch.equal((torch.full((4, 5), 2.0) - mean_D) / scale_D, torch.zeros(4, 5))


def test_a_modality_that_no_training_clip_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no training clip has face"):
        Standardiser(WIDTHS).fit({**rows(), "face": torch.full((6, 3), torch.nan)})


def test_discriminant_is_scikit_learns_but_for_what_it_adds_to_the_bias_of_frequent_classes() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(400) % 15 % 8  # the last class has half of the others' clips
    data = torch.randn(400, 12, generator=generator) + torch.randn(8, 12, generator=generator)[labels]
    solved = solve_discriminant(data, labels, CLASSES, Penalty(shrinkage=0.3))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(data.double(), labels)
    np.testing.assert_allclose(solved["out_weight"], reference.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(solved["out_bias"], reference.intercept_ - np.log(reference.priors_), atol=1e-4)


@pytest.mark.parametrize("solve", [solve_discriminant, solve_logistic])
def test_an_emotion_that_training_lacks_is_never_predicted(solve: Callable[..., Weights]) -> None:
    """RAVDESS song has six of the eight. The mean of all stood in for the others, and was often the nearest."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(240) % 6
    data = torch.randn(240, 20, generator=generator) + 0.3 * torch.randn(6, 20, generator=generator)[labels]
    head = "lda" if solve is solve_discriminant else "logistic"
    model = FusionModel(ModelSettings(head, {"audio": 20}, CLASSES), solve(data, labels, CLASSES, Penalty()))
    others = 5 * torch.randn(2000, 20, generator=generator)
    for rows in (data, others, 0.01 * others):
        logits = model({"audio": rows})
        assert torch.isfinite(logits).all()
        assert int(logits.argmax(1).max()) < 6
        assert float(logits.softmax(1)[:, 6:].detach().max()) == 0.0


def test_a_clip_that_stands_several_times_does_not_weaken_the_penalty() -> None:
    """Under `augment` the rows of `epochs` draws are joined: twenty epochs penalised a twentieth as much as one."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(120) % 8
    data = torch.randn(120, 6, generator=generator)
    for solve in (solve_discriminant, solve_logistic):
        once = solve(data, labels, CLASSES, Penalty())
        often = solve(data.repeat(20, 1), labels.repeat(20), CLASSES, Penalty(), 20)
        for name, weight in once.items():
            torch.testing.assert_close(often[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("classes", [8, 5, 2])
def test_logistic_regression_is_scikit_learns(classes: int) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(200) % classes
    data = torch.randn(200, 6, generator=generator) + torch.randn(8, 6, generator=generator)[labels]
    solved = solve_logistic(data, labels, CLASSES, Penalty(regularisation=10.0))
    model = FusionModel(ModelSettings("logistic", {"audio": 6}, CLASSES), solved)
    reference = LogisticRegression(C=0.1, max_iter=2000).fit(data, labels)
    ours = model({"audio": data}).softmax(1).detach().numpy()
    np.testing.assert_allclose(ours[:, :classes], reference.predict_proba(data), atol=1e-5)


def test_a_stack_writes_gradients_where_it_wrote_them_before() -> None:
    weights = StackWeights.of([draw_linear("out", 4, 3, torch.Generator()) for _ in range(5)], torch.device("cpu"))
    for heads in (5, 5, 2):
        first = weights.first(heads)
        gradient = torch.autograd.grad(linear(first, "out", torch.ones(heads, 6, 4)).sum(), list(first.values()))[0]
        assert gradient.data_ptr() == weights.memory["out_weight"].data_ptr()
        torch.testing.assert_close(gradient, torch.full((heads, 3, 4), 6.0))
