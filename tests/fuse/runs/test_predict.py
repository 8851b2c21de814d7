"""Predictions of a table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fuse.model.fusion import FusionModel, ModelSettings
from fuse.runs import predict as module
from fuse.runs.predict import predict


def test_very_many_rows_are_predicted_some_at_a_time_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # All went through the model at once, and what it made of them on its way took several times their room.
    model = FusionModel(ModelSettings("mlp", {"audio": 5, "text": 3}, classes=4, hidden=8))
    rows = {"audio": torch.randn(20, 5), "text": torch.randn(20, 3)}
    rows["text"][3] = torch.nan
    whole, seen = predict(model, rows), list[int]()
    monkeypatch.setattr(module, "AT_ONCE", 7)
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0]["audio"])))
    np.testing.assert_allclose(predict(model, rows), whole, rtol=1e-5)
    assert seen == [7, 7, 6]
    assert predict(model, {name: values[:0] for name, values in rows.items()}).shape == (0, 4)
