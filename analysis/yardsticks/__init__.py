"""Plain yardsticks on regression tables, reported beside the library's own results.

Each function takes training and test sets in original units, chooses its settings on validation
data inside each training set, and uses the test rows once. The networks train all splits together
as stacked parameters.
"""

from analysis.yardsticks.boosting import gradient_boosting
from analysis.yardsticks.dropout import BOSTON_TAUS, mc_dropout
from analysis.yardsticks.linear import lasso
from analysis.yardsticks.mean_field import mean_field_gaussian

__all__ = ["BOSTON_TAUS", "gradient_boosting", "lasso", "mc_dropout", "mean_field_gaussian"]
