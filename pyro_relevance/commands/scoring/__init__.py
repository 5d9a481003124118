"""What networks and simple baselines score on the same test rows.

``scores`` measures predictions, one way for all models, with standard errors over the test rows.
``baselines`` fits a constant, a linear model and boosted trees to the same training rows, and
``imbalance`` says how rare classes are decided.
"""
