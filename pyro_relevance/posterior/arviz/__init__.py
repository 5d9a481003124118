"""Posterior -> ArviZ, in both of its generations; nothing outside of this folder imports ArviZ."""

from __future__ import annotations

from pyro_relevance.posterior.arviz.convert import (
    ArvizData,
    architectures_to_arviz,
    load,
    rule_path,
    save,
    to_arviz,
    variable_name,
)

__all__ = [
    "ArvizData",
    "to_arviz",
    "architectures_to_arviz",
    "rule_path",
    "save",
    "load",
    "variable_name",
]
