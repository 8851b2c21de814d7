"""Products in bfloat16: near those in float32, in training alone, and refused where they would be float32 unsaid."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from configs.schema.fusion import FusionConfig
from fuse.model.fusion import ModelSettings
from fuse.stack.job import Fitted, Job
from fuse.stack.precision import Precision, _multiplies_bfloat16, products_in
from fuse.stack.rows import CachedRows
from fuse.stack.stack import Schedule, fit_stack

CLIPS = 160
needs_bfloat16 = pytest.mark.skipif(not _multiplies_bfloat16(), reason="this processor multiplies no bfloat16")


def trained(precision: Precision) -> Fitted:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(CLIPS) % 4
    centres = torch.randn(4, 256, generator=generator)
    rows_ND = 0.3 * centres[labels_N] + torch.randn(CLIPS, 256, generator=generator)
    cached = CachedRows({"audio": 256}, rows_ND, None, labels_N, {})
    job = Job(tuple(range(96)), tuple(range(96, CLIPS)), lr=3e-3)
    return fit_stack(
        ModelSettings("mlp", {"audio": 256}, 4, 128), cached, [job], Schedule(10, 32, precision=precision)
    )[0]


@needs_bfloat16
def test_a_head_trained_in_bfloat16_is_near_the_one_in_float32_and_not_equal() -> None:
    exact, near = trained("float32"), trained("bfloat16")
    weights = [one.model.weights["hidden_weight"].detach() for one in (exact, near)]
    assert not torch.equal(*weights)
    assert (weights[0] - weights[1]).norm() < 0.02 * weights[0].norm()
    assert near.history.train_loss == pytest.approx(exact.history.train_loss, abs=0.02)
    assert max(near.history.validation_uar) > 0.8
    assert all(weight.dtype == torch.float32 for weight in near.model.state_dict().values())


def test_what_multiplied_in_float32_before_does_so_after() -> None:
    with suppress(ZeroDivisionError), products_in("bfloat16"):
        assert torch.get_float32_matmul_precision() == "medium"
        _ = 1 / 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_bfloat16_is_refused_where_the_processor_does_not_multiply_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would multiply in float32 and say nothing."""
    monkeypatch.setattr("fuse.stack.precision._multiplies_bfloat16", lambda: False)
    with pytest.raises(ValueError, match="set precision=float32"):
        Schedule.of(FusionConfig(corpus="metadata.csv", device="cpu", precision="bfloat16"))
    assert Schedule.of(FusionConfig(corpus="metadata.csv", device="cpu")).precision == "float32"
