"""Linear regression with an L1 penalty."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LassoCV
from sklearn.model_selection import KFold

from analysis.splits import RawSplit, standardised
from analysis.yardsticks.protocol import NUM_FOLDS, gaussian_scores, result_of

__all__ = ["lasso"]


def lasso(splits: Sequence[RawSplit]) -> dict[str, Any]:
    """Linear regression with an L1 penalty chosen by cross-validation.

    The noise is Gaussian, with the mean squared error of the held-out folds as its variance.

    Args:
        splits: Training and test sets.

    Returns:
        Results by split; ``num_parameters`` counts the intercept and the coefficients that are not
        zero, not the noise scale.
    """
    started = time.perf_counter()
    values, penalties = [], []
    for split in splits:
        x, y, x_test, _ = (part.double().numpy() for part in standardised(split))
        folds = KFold(NUM_FOLDS, shuffle=True, random_state=0)
        model = LassoCV(cv=folds, max_iter=100_000).fit(x, y)
        unit = split[1].std()
        prediction = model.predict(x_test) * unit + split[1].mean()
        variance = model.mse_path_.mean(1).min() * unit**2
        penalties.append(float(model.alpha_))
        count = 1 + int(np.count_nonzero(model.coef_))
        values.append((*gaussian_scores(split[3], prediction, variance), count))
    return result_of(values, started, {"penalty": penalties, "num_folds": NUM_FOLDS})
