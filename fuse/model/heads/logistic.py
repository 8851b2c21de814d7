"""Multinomial logistic regression, solved by scikit-learn: the baseline that a head has to beat.

Shape letters: B clips, D width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fuse.model.heads.base import NEVER, Penalty
from fuse.model.heads.layer import Weights

ITERATIONS = 2000


def solve_logistic(rows_BD: Tensor, labels_B: Tensor, classes: int, penalty: Penalty, copies: int = 1) -> Weights:
    """The weights of one head. `regularisation` is 1 / C of scikit-learn: the L2 penalty over the sum of losses.

    Each of a clip's `copies` has that share of its loss, or drawing it more often would weaken the penalty. A class
    without training clips is never predicted.
    """
    # Here and not above: scikit-learn takes a second, and every command that knows the heads would wait for it.
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=1 / penalty.regularisation / copies, max_iter=ITERATIONS)
    regression.fit(rows_BD.cpu().double().numpy(), labels_B.cpu().numpy())
    weight_CD = torch.zeros(classes, rows_BD.shape[1])
    bias_C = torch.full((classes,), NEVER)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:
        coefficients, intercepts = [-coefficients[0] / 2, coefficients[0] / 2], [-intercepts[0] / 2, intercepts[0] / 2]
    for place, label in enumerate(regression.classes_):
        weight_CD[label] = torch.as_tensor(coefficients[place]).float()
        bias_C[label] = float(intercepts[place])
    return {"out_weight": weight_CD, "out_bias": bias_C}
