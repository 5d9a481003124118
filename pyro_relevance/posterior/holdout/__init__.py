"""Test the relevance of inputs on held-out rows: the holdout randomisation test.

The posterior says what a network uses; this test says what the target depends on. ``redraws`` draws
columns anew given the others, ``carried`` finds inputs that carry each other, ``monte_carlo`` ranks
the loss of the data among redraws, ``randomisation`` decides at a false discovery rate.
"""

from __future__ import annotations

from pyro_relevance.posterior.holdout.carried import carried_together
from pyro_relevance.posterior.holdout.decision import Verdict
from pyro_relevance.posterior.holdout.randomisation import holdout_test
from pyro_relevance.posterior.holdout.redraws import boosted_redraw, ridge_redraw
from pyro_relevance.posterior.holdout.result import GroupTest, HoldoutTest, SetTest

__all__ = [
    "holdout_test",
    "HoldoutTest",
    "GroupTest",
    "SetTest",
    "Verdict",
    "carried_together",
    "ridge_redraw",
    "boosted_redraw",
]
