"""The main job as estimators of scikit-learn: ``pr.sklearn``.

``RelevanceRegressor`` and ``RelevanceClassifier`` do what the command ``table`` does, without test
rows: they choose settings by cross-validation, fit chains, test the columns, and predict with the
pruned network. ``save`` and ``load`` use the files of a run folder, never pickle.
"""

from __future__ import annotations

from pyro_relevance.commands.estimators.classifier import RelevanceClassifier
from pyro_relevance.commands.estimators.regressor import RelevanceRegressor

__all__ = ["RelevanceClassifier", "RelevanceRegressor"]
