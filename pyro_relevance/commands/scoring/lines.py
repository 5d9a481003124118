"""Test results of networks and baselines as lines of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pyro_relevance.commands.scoring.baselines import ABOUT
from pyro_relevance.commands.scoring.imbalance import Decision
from pyro_relevance.commands.scoring.scores import ClassScore, Score, paired
from pyro_relevance.commands.table.columns import aligned

__all__ = [
    "baseline_sentences",
    "class_lines",
    "decision_sentences",
    "number",
    "score_lines",
]

MOST_CLASSES = 10
"""Classes of which the confusion matrix is printed."""


def number(value: float, digits: int = 4) -> str:
    """Return a number with some significant digits, and ``-`` for one that is not known."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def score_lines(
    scores: Mapping[str, Score], baselines: Mapping[str, Score], *, classes: bool
) -> list[str]:
    """Return one line per model, the networks first, then the baselines, under a header.

    Args:
        scores: Networks by name.
        baselines: Simple models by name.
        classes: Whether the error is a share of rows.
    """
    error = "test error" if classes else "test RMSE"
    rows = [_row(name, score) for name, score in scores.items()]
    if baselines:
        rows += [("baseline", *5 * ("",)), *(_row(name, s) for name, s in baselines.items())]
    return aligned(("network", "parameters", error, "+- SE", "test log likelihood", "+- SE"), rows)


def _row(name: str, score: Score) -> tuple[str, ...]:
    size = "-" if math.isnan(score.num_parameters) else f"{score.num_parameters:.0f}"
    return (
        name,
        f"{size} expected" if name == "posterior mean" else size,
        number(score.error),
        number(score.error_se, 2),
        f"{score.log_likelihood:.3f}",
        number(score.log_likelihood_se, 2),
    )


def baseline_sentences(
    pruned: Score | None, baselines: Mapping[str, Score], num_rows: int
) -> list[str]:
    """Return what the baselines are, and how the pruned network compares with the best of them.

    Args:
        pruned: Test result of the pruned network.
        baselines: Simple models by name.
        num_rows: Test rows.
    """
    if not baselines:
        return []
    about = "; ".join(f"{name}: {ABOUT[name]}" for name in baselines)
    lines = [
        f"Baselines, on the same training and test rows: {about}. +- SE: standard error over the "
        f"{num_rows} test rows."
    ]
    if pruned is not None:
        best = max(baselines, key=lambda name: baselines[name].log_likelihood)
        difference, error = paired(pruned, baselines[best])
        lines.append(
            f"Log likelihood of the pruned network minus that of the best baseline ({best}), row "
            f"by row: {difference:+.3f} +- {number(error, 2)} nats."
        )
        if difference < -2.0 * error:
            lines.append(
                f"{best.capitalize()} predicts better than the pruned network by more than two "
                "standard errors. Where only predictions matter, use it."
            )
    return lines


def class_lines(models: Mapping[str, Score], names: Sequence[str]) -> list[str]:
    """Return how models rank and calibrate classes, and the confusion matrix of the pruned network.

    Args:
        models: Networks and baselines by name.
        names: Names of the classes.
    """
    known = {name: score.classes for name, score in models.items() if score.classes is not None}
    if not known:
        return []
    rows = [
        (
            name,
            number(found.auc, 3),
            number(found.average_precision, 3),
            number(found.balanced_accuracy, 3),
            number(found.brier, 3),
            number(found.calibration_error, 2),
            number(found.calibration_error_by_chance, 2),
        )
        for name, found in known.items()
    ]
    header = ("classes", "AUC", "avg. precision", "balanced acc.", "Brier", "ECE", "ECE by chance")
    of = "the rarer class" if len(names) == 2 else "each class against the rest, averaged"
    lines = [
        *aligned(header, rows),
        "",
        f"AUC and average precision: of {of}; Brier: summed over classes, 0 to 2; ECE: calibration "
        "error of the most probable class, beside what bins of few rows give a faultless model.",
    ]
    if "pruned" in known:
        lines += ["", *_confusion_lines(known["pruned"], names)]
    return lines


def _confusion_lines(found: ClassScore, names: Sequence[str]) -> list[str]:
    if len(names) > MOST_CLASSES:
        return [f"The confusion matrix of {len(names)} classes is in record.json."]
    rows = [(name, *map(str, counts)) for name, counts in zip(names, found.confusion, strict=True)]
    return [
        "Test rows by class (rows) and prediction of the pruned network (columns):",
        *aligned(("", *names), rows),
    ]


def decision_sentences(decision: Decision | None) -> list[str]:
    """Return how classes are decided, and what that means for rare ones.

    Args:
        decision: What `decision_of` returned.
    """
    if decision is None:
        return []
    if not decision.positive:
        lines = ["The most probable class is predicted; classes have no weights in training."]
    else:
        lines = [
            "Classes have no weights in training, and the most probable one is predicted: "
            f"'{decision.positive}' above a probability of 0.5."
        ]
    if decision.rare:
        shares = ", ".join(f"'{name}' {decision.shares[name]:.1%}" for name in decision.rare)
        lines.append(
            f"Classes are imbalanced ({shares} of the training rows): the error is small for a "
            "model that never predicts them. Judge by AUC, average precision and balanced accuracy."
        )
    if decision.positive:
        other = next(name for name in decision.shares if name != decision.positive)
        place = list(decision.shares).index(decision.positive)
        own, rest = decision.confusion[place], decision.confusion[1 - place]
        lines.append(
            "The best balanced accuracy on held-out training rows has the threshold "
            f"{decision.threshold:.2g} for '{decision.positive}': on the test rows it finds "
            f"{own[place]} of {sum(own)} of '{decision.positive}', and {rest[1 - place]} of "
            f"{sum(rest)} of '{other}'."
        )
    return lines
