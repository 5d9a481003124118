"""Did the fit work? A verdict in words and numbers, before anything else is read from it.

``diagnose`` looks at the posterior, at the course of the training and, where they are given, at
held-out rows. It finds what a single number hides: a posterior that is still the prior, a run that
was too short, chains that disagree, a pruned network that is no better than a constant.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyro_relevance.errors import ConvergenceWarning
from pyro_relevance.masks import Mask, median_probability
from pyro_relevance.model.inputs import accepted, check_rows, checked_pair
from pyro_relevance.posterior.diagnostics import between_chain_agreement, undecided_fraction
from pyro_relevance.posterior.history import History
from pyro_relevance.posterior.holdout.losses import Loss, log_loss, loss_for, predictor
from pyro_relevance.posterior.posterior import Posterior
from pyro_relevance.surgery.pruning import apply_mask

__all__ = ["Diagnosis", "Finding", "FitLike", "Severity", "compare_losses", "diagnose"]

NEAR = 0.25
"""Log-odds within which a gate counts as still at its prior, in nats."""


class Severity(StrEnum):
    """How much a finding matters."""

    FAILED = "failed"
    """There is nothing to report from this fit."""
    CAUTION = "caution"
    """Read the result with this in mind."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Args:
        severity: How much it matters.
        what: What was found, with numbers.
        advice: What to do.
    """

    severity: Severity
    what: str
    advice: str

    def __str__(self) -> str:
        """Return both sentences."""
        return f"{self.severity.upper()}: {self.what} {self.advice}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found; printed, it is the verdict.

    Args:
        findings: Failures first.
        checked: Names of what was looked at.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether there is nothing to report from the fit."""
        return any(finding.severity is Severity.FAILED for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The verdict in one sentence."""
        if self.failed:
            return "The fit failed: do not use its relevances."
        if self.findings:
            return f"The fit can be used, with {len(self.findings)} caution(s)."
        return "No fault was found."

    def __str__(self) -> str:
        """Return the verdict, the findings and what was checked."""
        lines = [self.verdict, *map(str, self.findings), f"Checked: {', '.join(self.checked)}."]
        return "\n".join(lines)

    def merged(self, findings: tuple[Finding, ...], *checked: str) -> Diagnosis:
        """Return the diagnosis with the findings of more checks."""
        both = sorted([*self.findings, *findings], key=lambda f: f.severity is not Severity.FAILED)
        return Diagnosis(tuple(both), (*self.checked, *checked))


class FitLike(Protocol):
    """What is needed of the result of ``fit``."""

    @property
    def posterior(self) -> Posterior:
        """The posterior of all chains."""

    @property
    def history(self) -> History:
        """The course of the training."""

    @property
    def best_chain(self) -> int:
        """The chain that would be pruned."""


def diagnose(
    fit: FitLike,
    *,
    held_out: tuple[Tensor, Tensor] | None = None,
    mask: Mapping[str, Tensor] | None = None,
    dense: nn.Module | None = None,
    loss: Literal["squared", "log"] | Loss | None = None,
    warn: bool = True,
) -> Diagnosis:
    """Say whether a fit worked, in words and numbers.

    Looks for gates that are still at their prior (nothing was learned), a mask that keeps nothing,
    an expected size or a loss that still moves over the last tenth of the run, chains that end
    apart, and gates that are neither on nor off. With held-out rows it also asks whether the pruned
    network is better than the best constant, and no worse than the dense one.

    Args:
        fit: The result of ``fit``.
        held_out: ``(x, y)`` rows that the fit did not see.
        mask: What is kept of the best chain; by default `median_probability` of it.
        dense: A network trained without gates, to compare with.
        loss: Loss of a held-out row; by default what fits the targets, see ``holdout_test``.
        warn: Whether a fit that failed also gives a `ConvergenceWarning`.

    Returns:
        The findings, failures first.

    Warns:
        ConvergenceWarning: If the fit failed.
    """
    posterior = fit.posterior
    found: list[Finding] = []
    checked: list[str] = []
    if posterior.model.has_gates:
        probability = posterior.inclusion_probability()
        kept = median_probability(posterior.chain(fit.best_chain)) if mask is None else mask
        found += _learning(posterior, probability) + _nothing_kept(kept) + _undecided(probability)
        checked += ["gates against prior", "what is kept", "undecided gates"]
        if posterior.num_chains > 1:
            found += _chains(probability, fit.history, posterior.model.num_data)
            checked.append("agreement of chains")
        if held_out is not None:
            found += _held_out(fit, kept, held_out, dense, loss)
            checked.append("held-out rows")
    found += _course(fit.history)
    checked.append("end of the training")
    diagnosis = Diagnosis((), ()).merged(tuple(found), *checked)
    if warn and diagnosis.failed:
        first = diagnosis.findings[0]
        warnings.warn(f"{first.what} {first.advice}", ConvergenceWarning, stacklevel=2)
    return diagnosis


def compare_losses(
    pruned: NDArray[np.floating],
    constant: NDArray[np.floating],
    dense: NDArray[np.floating] | None = None,
    *,
    name: str = "loss",
) -> tuple[Finding, ...]:
    """Compare a pruned network with the best constant and the dense network, row by row.

    Args:
        pruned: ``(num_rows,)`` losses of held-out rows.
        constant: The same of the best constant prediction.
        dense: The same of the dense network.
        name: Name of the loss.
    """
    found = []
    gain, error = _paired(constant - pruned)
    numbers = f"{pruned.mean():.3g} against {constant.mean():.3g}"
    if gain <= 0:
        found.append(
            Finding(
                Severity.FAILED,
                f"On {len(pruned)} held-out rows the pruned network is no better than a constant "
                f"({name} {numbers}).",
                "There may be nothing to learn; else fit longer, widen the weights' prior or "
                "raise the prior odds.",
            )
        )
    elif gain < 2 * error:
        found.append(
            Finding(
                Severity.CAUTION,
                f"On {len(pruned)} held-out rows the pruned network is better than a constant by "
                f"less than two standard errors ({name} {numbers}, difference {gain:.2g} +- "
                f"{error:.2g}).",
                "Use more rows before a claim.",
            )
        )
    if dense is not None:
        loss, error = _paired(pruned - dense)
        if loss > max(2 * error, 0.05 * abs(dense.mean())):
            found.append(
                Finding(
                    Severity.CAUTION,
                    f"On {len(pruned)} held-out rows the pruned network is worse than the dense "
                    f"one ({name} {pruned.mean():.3g} against {dense.mean():.3g}, difference "
                    f"{loss:.2g} +- {error:.2g}).",
                    "Raise the prior odds, or keep more by another rule.",
                )
            )
    return tuple(found)


def _paired(difference: NDArray[np.floating]) -> tuple[float, float]:
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _learning(posterior: Posterior, probability: Mapping[str, Tensor]) -> list[Finding]:
    """Return a finding where gates are still at their prior."""
    prior = posterior.sample_prior(200).inclusion_probability
    share = {}
    for name, p in probability.items():
        before = _log_odds(prior[name].mean(dim=(0, 1)))
        share[name] = float(((_log_odds(p) - before).abs() < NEAR).double().mean())
    still = [name for name, value in share.items() if value >= 0.95]
    if not still:
        return []
    numbers = ", ".join(
        f"{name} {share[name]:.0%} at {float(prior[name].mean()):.2f}" for name in still
    )
    everything = len(still) == len(share)
    return [
        Finding(
            Severity.FAILED if everything else Severity.CAUTION,
            f"Gates are still at their prior probability ({numbers}): nothing was learned of them.",
            "Widen the prior of the weights or raise the prior odds, warm up the KL for longer, or "
            "use more data.",
        )
    ]


def _log_odds(p: Tensor) -> Tensor:
    return p.double().clamp(1e-12, 1 - 1e-12).logit()


def _nothing_kept(mask: Mapping[str, Tensor]) -> list[Finding]:
    empty = [name for name, kept in mask.items() if kept.numel() and not bool(kept.any())]
    if not empty:
        return []
    return [
        Finding(
            Severity.FAILED,
            f"Nothing is kept of {', '.join(empty)}: the pruned network is a constant.",
            "Raise the prior odds, or fit longer; if it stays so, the inputs say nothing that "
            "this network can use.",
        )
    ]


def _undecided(probability: Mapping[str, Tensor]) -> list[Finding]:
    share = {name: undecided_fraction(p) for name, p in probability.items()}
    many = [f"{name} {value:.0%}" for name, value in share.items() if value > 0.5]
    if not many:
        return []
    return [
        Finding(
            Severity.CAUTION,
            f"Most gates are neither on nor off (between 0.1 and 0.9: {', '.join(many)}).",
            "A mask of them is one choice of many: fit longer, or report the probabilities.",
        )
    ]


def _chains(probability: Mapping[str, Tensor], history: History, num_data: int) -> list[Finding]:
    """Return findings on chains that end apart."""
    found = []
    if "inputs" in probability:
        spread = between_chain_agreement(probability)["inputs"]
        apart = int((spread > 0.5).sum())
        if apart:
            found.append(
                Finding(
                    Severity.CAUTION,
                    f"Chains disagree on {apart} of {spread.numel()} inputs (inclusion differs by "
                    "more than 0.5).",
                    "Report the range over chains, and test the inputs on held-out rows.",
                )
            )
    if len(history.step):
        final = history.final_loss() / num_data
        if np.ptp(final) > 0.1:
            found.append(
                Finding(
                    Severity.CAUTION,
                    f"Chains end at losses from {final.min():.3f} to {final.max():.3f} nats a row.",
                    "Prune the best chain, and start more of them.",
                )
            )
    return found


def _course(history: History) -> list[Finding]:
    """Return findings on a size or a loss that still moves at the end of the run."""
    if len(history.step) < 10:
        return []
    found = []
    tenth = max(3, len(history.step) // 10)
    sizes = history.expected_size
    moved = np.abs(sizes[:, -1] - sizes[:, -tenth]) / np.maximum(sizes[:, -1], 1.0)
    if np.isfinite(moved).all() and moved.max() > 0.02:
        found.append(
            Finding(
                Severity.CAUTION,
                f"Gates are still moving: the expected size changed by {moved.max():.1%} over the "
                "last tenth of the run.",
                "Fit longer, or end the annealing earlier (schedules.within).",
            )
        )
    final = history.loss[:, history.kl_weight >= history.kl_weight[-1]]
    if final.shape[1] >= 2 * tenth:
        last, before = final[:, -tenth:], final[:, -2 * tenth : -tenth]
        fall = before.mean(1) - last.mean(1)
        error = np.sqrt((last.var(1, ddof=1) + before.var(1, ddof=1)) / tenth)
        whole = np.maximum(np.ptp(final, axis=1), 1e-12)
        falling = (fall > 3 * error) & (fall > 0.05 * whole)
        if falling.any():
            worst = int(np.argmax(np.where(falling, fall, -np.inf)))
            found.append(
                Finding(
                    Severity.CAUTION,
                    f"The loss is not on a plateau: it fell by {fall[worst]:.3g} nats "
                    f"({fall[worst] / whole[worst]:.0%} of its range) over the last tenth of the "
                    "run.",
                    "Fit for more epochs.",
                )
            )
    return found


def _held_out(
    fit: FitLike,
    mask: Mapping[str, Tensor],
    data: tuple[Tensor, Tensor],
    dense: nn.Module | None,
    loss: Literal["squared", "log"] | Loss | None,
) -> list[Finding]:
    """Return findings on the pruned network against a constant and the dense network."""
    posterior = fit.posterior.chain(fit.best_chain)
    x, y = checked_pair(posterior.model.network, *data)
    per_row = loss_for(loss, y, posterior)
    kept = mask if isinstance(mask, Mask) else Mask(mask)
    with accepted(posterior.model.network, x, "held-out inputs"):
        pruned = predictor(apply_mask(posterior.network(), posterior.edges, kept), 1, 0)(x)
    check_rows(pruned, x, "held-out inputs")

    def losses(outputs: Tensor) -> NDArray[np.float64]:
        return np.asarray(per_row(outputs, y).double().numpy())

    if per_row is log_loss:
        classes = pruned.shape[1] if pruned.ndim > 1 and pruned.shape[1] > 1 else 2
        share = torch.bincount(y.long(), minlength=classes).double() / len(y)
        best = share.clamp(min=1e-12).log().expand(len(y), -1)
    else:
        best = y.double().mean(0).expand_as(y)
    others = None if dense is None else losses(predictor(dense, 1, 0)(x))
    name = per_row.__name__.replace("_", " ")
    return list(compare_losses(losses(pruned), losses(best), others, name=name))
