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
    from pyro_relevance import comparison, errors, graphs, masks, plots
    from pyro_relevance.commands import estimators as sklearn
    from pyro_relevance.commands.table.predictor import Predictor, load_run
    from pyro_relevance.comparison import baselines, robustness
    from pyro_relevance.data import augmentation, datasets, images, networks, tables
    from pyro_relevance.edges import Edges, find_edges, operators
    from pyro_relevance.graphs.derivation import derive
    from pyro_relevance.masks import Mask
    from pyro_relevance.model import (
        LeanELBO,
        LocalExpectationELBO,
        Precision,
        RelevanceModel,
        ScoreFunctionELBO,
        distributions,
        fit_noise,
        guides,
        likelihoods,
        priors,
        relaxations,
    )
    from pyro_relevance.posterior import (
        Posterior,
        before_pruning,
        diagnostics,
        holdout,
        intervals,
        load_posterior,
        relevance,
        save_posterior,
    )
    from pyro_relevance.posterior import arviz as report
    from pyro_relevance.posterior.arviz import rule_path, to_arviz
    from pyro_relevance.posterior.diagnosis import diagnose
    from pyro_relevance.posterior.holdout import holdout_test
    from pyro_relevance.search import SearchSettings, collapse, search_structure, shared_weights
    from pyro_relevance.search import queries as query_search
    from pyro_relevance.surgery import (
        ExportReceipt,
        ModelCard,
        PrunedNetwork,
        apply_mask,
        export_onnx,
        export_torch,
        from_pretrained,
        load_pruned,
        prune,
        save_pretrained,
    )
    from pyro_relevance.training import (
        Budget,
        BudgetedFit,
        Checkpoint,
        Estimation,
        Execution,
        Fit,
        Optimisation,
        callbacks,
        fine_tune,
        fit,
        fit_front,
        fit_to_budget,
        schedules,
    )

__version__: str
"""Version of the installed package; ``"0+unknown"`` where it is used without an installation."""

# Public functions and types, and the room that each lives in.
_HOMES = {
    "find_edges": "edges",
    "Edges": "edges",
    "RelevanceModel": "model",
    "Precision": "model",
    "LeanELBO": "model",
    "LocalExpectationELBO": "model",
    "ScoreFunctionELBO": "model",
    "fit": "training",
    "fit_noise": "model",
    "fit_to_budget": "training",
    "fit_front": "training",
    "Fit": "training",
    "Budget": "training",
    "BudgetedFit": "training",
    "Optimisation": "training",
    "Estimation": "training",
    "Execution": "training",
    "Checkpoint": "training",
    "fine_tune": "training",
    "Posterior": "posterior",
    "save_posterior": "posterior",
    "load_posterior": "posterior",
    "to_arviz": "posterior.arviz",
    "holdout_test": "posterior.holdout",
    "diagnose": "posterior.diagnosis",
    "rule_path": "posterior.arviz",
    "Mask": "masks",
    "apply_mask": "surgery",
    "prune": "surgery",
    "PrunedNetwork": "surgery",
    "load_pruned": "surgery",
    "export_torch": "surgery",
    "export_onnx": "surgery",
    "ExportReceipt": "surgery",
    "ModelCard": "surgery",
    "save_pretrained": "surgery",
    "from_pretrained": "surgery",
    "load_run": "commands.table.predictor",
    "Predictor": "commands.table.predictor",
    "derive": "graphs.derivation",
    "search_structure": "search",
    "SearchSettings": "search",
}

# Public modules by the name that users write, and where each lives.
_MODULES = {
    "errors": "errors",
    "operators": "edges.operators",
    "tables": "data.tables",
    "datasets": "data.datasets",
    "images": "data.images",
    "augmentation": "data.augmentation",
    "networks": "data.networks",
    "graphs": "graphs",
    "likelihoods": "model.likelihoods",
    "priors": "model.priors",
    "relaxations": "model.relaxations",
    "guides": "model.guides",
    "distributions": "model.distributions",
    "schedules": "training.schedules",
    "callbacks": "training.callbacks",
    "relevance": "posterior.relevance",
    "intervals": "posterior.intervals",
    "before_pruning": "posterior.before_pruning",
    "diagnostics": "posterior.diagnostics",
    "holdout": "posterior.holdout",
    "report": "posterior.arviz",
    "masks": "masks",
    "plots": "plots",
    "query_search": "search.queries",
    "shared_weights": "search.shared_weights",
    "collapse": "search.collapse",
    "sklearn": "commands.estimators",
    "baselines": "comparison.baselines",
    "comparison": "comparison",
    "robustness": "comparison.robustness",
}

__all__ = [
    "Budget",
    "BudgetedFit",
    "Checkpoint",
    "Edges",
    "Estimation",
    "Execution",
    "ExportReceipt",
    "Fit",
    "LeanELBO",
    "LocalExpectationELBO",
    "Mask",
    "ModelCard",
    "Optimisation",
    "Posterior",
    "Precision",
    "Predictor",
    "PrunedNetwork",
    "RelevanceModel",
    "ScoreFunctionELBO",
    "SearchSettings",
    "apply_mask",
    "augmentation",
    "baselines",
    "before_pruning",
    "callbacks",
    "collapse",
    "comparison",
    "datasets",
    "derive",
    "diagnose",
    "diagnostics",
    "distributions",
    "errors",
    "export_onnx",
    "export_torch",
    "find_edges",
    "fine_tune",
    "fit",
    "fit_to_budget",
    "fit_front",
    "fit_noise",
    "from_pretrained",
    "graphs",
    "guides",
    "holdout",
    "holdout_test",
    "images",
    "intervals",
    "likelihoods",
    "load_posterior",
    "load_pruned",
    "load_run",
    "masks",
    "networks",
    "operators",
    "plots",
    "priors",
    "prune",
    "query_search",
    "relaxations",
    "relevance",
    "report",
    "robustness",
    "rule_path",
    "save_posterior",
    "save_pretrained",
    "schedules",
    "search_structure",
    "shared_weights",
    "sklearn",
    "tables",
    "to_arviz",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the library costs nothing."""
    value: Any
    if name == "__version__":
        value = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"pyro_relevance.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"pyro_relevance.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'pyro_relevance' has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("pyro-relevance")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
