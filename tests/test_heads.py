"""The contract of every head, and the standardiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cache.clips import LABELS
from fuse.heads import HEADS, Discriminant, FusionModel, Standardiser, make_head

WIDTHS = {"audio": 5, "video": 4, "text": 3}


def rows(clips: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(clips, width, generator=generator) * 3 + 1 for name, width in WIDTHS.items()}


@pytest.mark.parametrize("name", HEADS)
class TestEveryHead:
    def test_returns_a_logit_per_class(self, name: str) -> None:
        assert make_head(name, WIDTHS, 16, 0.0)(rows()).shape == (6, len(LABELS))

    def test_a_clip_does_not_depend_on_its_batch(self, name: str) -> None:
        head = make_head(name, WIDTHS, 16, 0.0).eval()
        alone = head({key: values[2:3] for key, values in rows().items()})
        torch.testing.assert_close(head(rows())[2:3], alone)

    def test_uses_every_modality(self, name: str) -> None:
        head = make_head(name, WIDTHS, 16, 0.0).eval()
        for modality in WIDTHS:
            changed = {**rows(), modality: rows()[modality] + 1}
            assert not torch.allclose(head(changed), head(rows()))

    @pytest.mark.parametrize("modality", WIDTHS)
    def test_takes_any_subset(self, name: str, modality: str) -> None:
        head = make_head(name, {modality: WIDTHS[modality]}, 16, 0.0)
        assert head({modality: rows()[modality]}).shape == (6, len(LABELS))

    def test_loads_its_own_state(self, name: str) -> None:
        first, second = (FusionModel(name, WIDTHS, 16, 0.1).eval() for _ in range(2))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(rows()), second(rows()))


def test_card_head_has_the_card_sizes() -> None:
    head = make_head("mlp", {"audio": 768, "video": 768, "text": 768}, 256, 0.1)
    assert [tuple(p.shape) for p in head.parameters()] == [(256, 2304), (256,), (8, 256), (8,)]


def test_unknown_head_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown head 'mpl'; known: mlp, linear, lda"):
        make_head("mpl", WIDTHS, 16, 0.0)


def test_standardised_training_rows_have_mean_0_and_sd_1() -> None:
    standardised = Standardiser(WIDTHS).fit(rows(50))(rows(50))
    for values in standardised.values():
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.std(0, unbiased=False), torch.ones(values.shape[1]), atol=1e-5, rtol=0)


def test_absent_rows_become_the_training_mean_and_do_not_count() -> None:
    given = rows(50)
    with_gap = {**given, "text": given["text"].clone()}
    with_gap["text"][10:20] = torch.nan
    kept = torch.cat([given["text"][:10], given["text"][20:]])
    standardiser = Standardiser(WIDTHS).fit(with_gap)
    torch.testing.assert_close(standardiser.mean_["text"], kept.mean(0))
    assert torch.equal(standardiser(with_gap)["text"][10:20], torch.zeros(10, 3))


def test_a_constant_feature_does_not_divide_by_zero() -> None:
    constant = {"audio": torch.full((4, 5), 2.0)}
    assert torch.equal(Standardiser({"audio": 5}).fit(constant)(constant)["audio"], torch.zeros(4, 5))


def test_a_modality_that_no_training_clip_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no training clip has text"):
        Standardiser(WIDTHS).fit({**rows(), "text": torch.full((6, 3), torch.nan)})


def test_discriminant_equals_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(400) % 8
    data = torch.randn(400, 12, generator=generator) + torch.randn(8, 12, generator=generator)[labels]
    head = Discriminant({"audio": 12}, 0, 0.0)
    head.solve({"audio": data}, labels, shrinkage=0.3)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=[1 / 8] * 8).fit(data, labels)
    ours = head({"audio": data}).softmax(1).detach().numpy()
    np.testing.assert_allclose(ours, reference.predict_proba(data), atol=0.02)
    assert (ours.argmax(1) == reference.predict(data)).mean() > 0.99


def test_discriminant_never_prefers_an_emotion_that_training_lacks() -> None:
    data = torch.randn(80, 5) + 3 * (torch.arange(80) % 4)[:, None]
    head = Discriminant({"audio": 5}, 0, 0.0)
    head.solve({"audio": data}, torch.arange(80) % 4, shrinkage=0.5)
    assert torch.isfinite(head({"audio": data})).all()
    assert (head({"audio": data}).argmax(1) < 4).float().mean() > 0.6
