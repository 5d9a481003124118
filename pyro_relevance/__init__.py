"""Which parts of a neural network matter: relevance of its edges as latent Pyro variables.

The public names, in the order in which data flow through them:

    network --find_edges--> Edges --RelevanceModel--> model --fit--> Fit.posterior
    posterior --masks.*--> Mask --prune--> a smaller network
    posterior --to_arviz--> ArviZ --plots.*--> figures
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_relevance import (
        augmentation,
        baselines,
        callbacks,
        comparison,
        datasets,
        diagnostics,
        distributions,
        errors,
        graphs,
        guides,
        images,
        likelihoods,
        masks,
        networks,
        plots,
        priors,
        relaxations,
        relevance,
        robustness,
        schedules,
        tables,
    )
    from pyro_relevance.derivation import derive
    from pyro_relevance.edges import Edges, find_edges
    from pyro_relevance.elbo import LeanELBO
    from pyro_relevance.export import ExportReceipt, export_onnx, export_torch
    from pyro_relevance.fine_tuning import fine_tune
    from pyro_relevance.io import load_posterior, save_posterior
    from pyro_relevance.masks import Mask
    from pyro_relevance.model import RelevanceModel
    from pyro_relevance.operation_elbo import LocalExpectationELBO, ScoreFunctionELBO
    from pyro_relevance.posterior import Posterior
    from pyro_relevance.precision import Precision
    from pyro_relevance.report import rule_path, to_arviz
    from pyro_relevance.surgery import PrunedNetwork, apply_mask, load_pruned, prune
    from pyro_relevance.svi import Checkpoint, Fit, fit

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "Edges",
    "ExportReceipt",
    "Fit",
    "LeanELBO",
    "LocalExpectationELBO",
    "Mask",
    "Posterior",
    "Precision",
    "PrunedNetwork",
    "RelevanceModel",
    "ScoreFunctionELBO",
    "apply_mask",
    "augmentation",
    "baselines",
    "callbacks",
    "comparison",
    "datasets",
    "derive",
    "diagnostics",
    "distributions",
    "errors",
    "export_onnx",
    "export_torch",
    "find_edges",
    "fine_tune",
    "fit",
    "graphs",
    "guides",
    "images",
    "likelihoods",
    "load_posterior",
    "load_pruned",
    "masks",
    "networks",
    "plots",
    "priors",
    "prune",
    "relaxations",
    "relevance",
    "robustness",
    "rule_path",
    "save_posterior",
    "schedules",
    "tables",
    "to_arviz",
]

_HOMES = {
    "Checkpoint": "svi",
    "Edges": "edges",
    "ExportReceipt": "export",
    "Fit": "svi",
    "LeanELBO": "elbo",
    "LocalExpectationELBO": "operation_elbo",
    "Mask": "masks",
    "Posterior": "posterior",
    "Precision": "precision",
    "PrunedNetwork": "surgery",
    "RelevanceModel": "model",
    "ScoreFunctionELBO": "operation_elbo",
    "apply_mask": "surgery",
    "derive": "derivation",
    "export_onnx": "export",
    "export_torch": "export",
    "find_edges": "edges",
    "fine_tune": "fine_tuning",
    "fit": "svi",
    "load_posterior": "io",
    "load_pruned": "surgery",
    "prune": "surgery",
    "rule_path": "report",
    "save_posterior": "io",
    "to_arviz": "report",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the library costs nothing."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"pyro_relevance.{_HOMES[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"pyro_relevance.{name}")
    else:
        raise AttributeError(f"module 'pyro_relevance' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
