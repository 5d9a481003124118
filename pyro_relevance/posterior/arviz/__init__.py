"""Posterior -> ArviZ, in both of its generations; nothing outside of this folder imports ArviZ.

The groups that `to_arviz` writes:

============================= ==================================================================
group                         content
============================= ==================================================================
``posterior``                 latent sites under their Pyro names (``gate``: relaxed, on the logit
                              scale) and the weights that are drawn, ``(chain, draw, ...)``
``point_estimates``           what has one value in a chain: point weights, ``noise_scale`` (the
                              target's unit), ``degrees_of_freedom``, ``prior_log_odds``
``relevance``                 ``<group>_gate`` (0 or 1), ``<group>_inclusion_probability`` and
                              ``<group>_effect`` (norm of the gated weights that read the edge)
                              over ``(chain, draw, <group>_edge)``, the labels as coordinates
``relevance_summary``         of each edge: ``<group>_inclusion_mean`` over draws and chains,
                              ``<group>_inclusion_lowest_chain`` and ``..._highest_chain``, and
                              mean, lower and upper end of the 89 % interval of the effect
``prior``                     gates and probabilities drawn from the prior
``sample_stats``              the training history over ``(chain, step)``
``observed_data``             ``y`` of the rows that were trained on, in the target's unit
``log_likelihood``            of these rows, pointwise in nats
``posterior_predictive``      ``y`` drawn for these rows
``constant_data``             their inputs and the scales of the inputs, where they were given
``predictions``               of new rows: ``y`` drawn, ``y_mean`` expected, and where their targets
                              are known ``log_likelihood`` and, of each draw, ``loss`` (nats a row)
                              and ``error`` (RMSE, or share of wrong classes)
``predictions_constant_data`` the inputs of the new rows and, where known, their ``y``
============================= ==================================================================

The inclusion probability of a mean-field guide, and the effect of a point weight whose gate is
sure, are constant within a chain, where ``r_hat`` divides by zero. Therefore ``az.summary(idata)``
is of ``posterior``, in which everything varies; ``az.summary(idata, group="relevance")`` is of the
edges. ``<group>`` is spelled as by `variable_name`; gates with a shape are flattened, and
``inclusion_probability`` over ``(chain, draw, edge)`` joins all groups, with coordinates
``"group[label]"``. A model without gates has effects only, and no ``prior``. For the operations of
relaxed graphs, ``relevance`` has ``<structure>_operation_gate`` and
``<structure>_operation_probability`` over ``(chain, draw, source, target, operation)``, NaN where a
graph has no such edge. The attributes ``pyro_relevance_groups`` and ``pyro_relevance_layers`` of
``relevance`` hold, as JSON, where the gates touch the network and the shapes of its weights.

``log_likelihood`` means little to ``az.loo`` where rows were fitted by point estimates. With
``held_out`` its values are those of networks that never saw the row: ``log(mean(exp(...)))`` over
draws is the cross-validated density itself, and ``az.loo``, which leaves each row out once more, is
a little below it.
"""

from __future__ import annotations

from pyro_relevance.posterior.arviz.convert import (
    ArvizData,
    Features,
    HeldOutDraws,
    TargetUnits,
    architectures_to_arviz,
    load,
    rule_path,
    save,
    to_arviz,
    variable_name,
)
from pyro_relevance.posterior.arviz.dependence import partial_dependence

__all__ = [
    "ArvizData",
    "Features",
    "HeldOutDraws",
    "TargetUnits",
    "to_arviz",
    "architectures_to_arviz",
    "rule_path",
    "partial_dependence",
    "save",
    "load",
    "variable_name",
]
