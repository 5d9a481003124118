"""What a report page says: the record of a run as tables and sentences.

The same tables become HTML and LaTeX, so the two never differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_relevance.commands.scoring.lines import number
from pyro_relevance.errors import CheckpointError
from pyro_relevance.surgery.receipt import Receipt, milliseconds

__all__ = ["Content", "Table", "read_content"]

MOST_CLASSES = 20
"""Classes of which the confusion matrix is shown."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text; the first cell of a row names the row.

    Args:
        key: Short name, for anchors and labels.
        title: What it shows, one sentence.
        header: Names of the columns.
        rows: Cells, as many as there are columns.
        note: What the columns mean.
    """

    key: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Content:
    """Everything that a page says beside its figures.

    Args:
        record: The content of ``record.json``.
    """

    record: Mapping[str, Any]

    @property
    def report(self) -> Mapping[str, Any]:
        """The part of the record that was written for the report."""
        part: Mapping[str, Any] = self.record["report"]
        return part

    @property
    def failed(self) -> bool:
        """Whether the fit failed: nothing of it is praised."""
        return bool(self.record["fit_failed"])

    @property
    def status(self) -> str:
        """The verdict in one word: ``failed``, ``caution`` or ``good``."""
        if self.failed:
            return "failed"
        return "caution" if self.report["findings"] else "good"

    @property
    def about(self) -> str:
        """What was fitted, in one sentence."""
        found = self.report
        return (
            f"{found['task'].capitalize()} of {found['target']} in "
            f"{Path(self.record['table']).name}: "
            f"{found['num_train']:,} rows to train on, {found['num_test']:,} to test on, "
            f"{found['num_chains']} chains."
        )

    @property
    def short(self) -> list[str]:
        """The result in a few sentences; nothing of it is praised where the fit failed."""
        if self.failed:
            return ["The fit failed: there is no result to report. Do what the verdict advises."]
        rows = {row["method"]: row for row in self.record["rows"]}
        key = "test_error" if self.report["task"] == "classification" else "rmse"
        named = "test error" if key == "test_error" else "test RMSE"

        def stated(name: str) -> str:
            row = rows[name]
            error = _with_error(row["metrics"][key]["mean"], row["se_over_test_rows"][key], 3)
            return f"{name} {error}"

        receipt = Receipt.from_dict(self.record["receipt"])
        baselines = [name for name, row in rows.items() if row["kind"] == "baseline"]
        best = min(baselines, key=lambda name: rows[name]["metrics"][key]["mean"])
        others = [name for name in ("dense", "posterior mean") if name in rows]
        return [
            self.report["relevant"],
            f"The pruned network has {receipt.after.num_nonzero:,} of "
            f"{receipt.before.num_parameters:,} parameters "
            f"({receipt.compression_ratio:.1f}× fewer).",
            f"{named[0].upper()}{named[1:]} ± SE: {', '.join(map(stated, ['pruned', *others]))}; "
            f"best baseline: {stated(best)}.",
        ]

    @property
    def expected(self) -> str:
        """What the cross-validation promised, in one sentence."""
        found = self.report["expected"]
        low, high = (number(end, 3) for end in found["error"])
        least, most = (number(end, 3) for end in found["log_likelihood"])
        return (
            f"Before the test, cross-validation promised the pruned network {self._error} of {low} "
            f"to {high} and a log likelihood of {least} to {most} nats a row "
            f"({found['probability']:.0%} predictive intervals for {self.report['num_test']} rows)."
        )

    @property
    def _error(self) -> str:
        return "an error" if self.report["task"] == "classification" else "an RMSE"

    def inputs(self) -> Table:
        """Test, network and posterior of each input side by side."""
        found, rate = self.report, self.record["holdout_test"]["rate"]
        squared = self.record["holdout_test"]["loss"] == "squared"
        rows = []
        for entry in found["inputs"]:
            verdict = entry["verdict"]
            if entry["together"] and verdict == "inseparable":
                verdict = f"together with {', '.join(entry['together'])}"
            rows.append(
                (
                    entry["name"],
                    _with_error(entry["rise"], entry["rise_se"], 3),
                    _number(entry["p_value"], 2),
                    verdict,
                    "reads it" if entry["read"] else "does not read it",
                    f"{entry['inclusion']:.2f} ({entry['inclusion_lowest']:.2f} to "
                    f"{entry['inclusion_highest']:.2f})",
                    f"{entry['effect']:.2f} ({entry['effect_lower']:.2f} to "
                    f"{entry['effect_upper']:.2f})",
                )
            )
        return Table(
            "inputs",
            f"Inputs, the strongest evidence first, at a false discovery rate of {rate:g}.",
            (
                "Input",
                f"Rise of {'RMSE' if squared else 'log loss'} ± SE",
                "p",
                "Holdout test",
                "Pruned network",
                "Inclusion (chains)",
                f"Effect ({found['interval']:.0%} interval)",
            ),
            tuple(rows),
            "Rise: of the held-out error when the column is drawn anew given the others; p: rank "
            "of the data among redraws (holdout randomisation test). Not shown is not irrelevant. "
            "Inclusion: posterior probability that the network uses the input, with its lowest and "
            "highest chain; it describes the fit and is no tested statement about the data. "
            "Effect: norm of the gated weights that read the input.",
        )

    def models(self) -> Table:
        """Sizes and test results of networks and baselines."""
        classes = self.report["task"] == "classification"
        key = "test_error" if classes else "rmse"
        rows = []
        for row in self.record["rows"]:
            metrics, errors = row["metrics"], row["se_over_test_rows"]
            size = metrics.get("num_parameters", {}).get("mean", math.nan)
            name = row["method"]
            expected = " expected" if name == "posterior mean" else ""
            rows.append(
                (
                    f"{name} (baseline)" if row["kind"] == "baseline" else name,
                    "–" if math.isnan(size) else f"{size:,.0f}{expected}",
                    _with_error(metrics[key]["mean"], errors[key], 4),
                    _with_error(
                        metrics["test_log_likelihood"]["mean"], errors["test_log_likelihood"], 4
                    ),
                )
            )
        return Table(
            "models",
            "Test results of networks and baselines on the same rows.",
            (
                "Model",
                "Parameters",
                ("Test error" if classes else "Test RMSE") + " ± SE",
                "Test log likelihood (nats a row) ± SE",
            ),
            tuple(rows),
            f"SE: standard error over the {self.report['num_test']} test rows.",
        )

    def classes(self) -> Table | None:
        """How models rank and calibrate classes."""
        known = [row for row in self.record["rows"] if "classes" in row]
        if not known:
            return None
        fields = (
            "auc",
            "average_precision",
            "balanced_accuracy",
            "brier",
            "calibration_error",
            "calibration_error_by_chance",
        )
        return Table(
            "classes",
            "Ranking and calibration of the classes on the test rows.",
            (
                "Model",
                "AUC",
                "Average precision",
                "Balanced accuracy",
                "Brier score",
                "Calibration error",
                "… by chance",
            ),
            tuple(
                (row["method"], *(_number(row["classes"][field], 3) for field in fields))
                for row in known
            ),
            "AUC and average precision: of the rarer of two classes, or the mean of each class "
            "against the rest. Brier score: summed over classes, 0 to 2. Calibration error: of the "
            "most probable class, beside what bins of few rows give a model without fault.",
        )

    def confusion(self) -> Table | None:
        """Test rows by class and prediction of the pruned network."""
        names = self.report["classes"]
        rows: Mapping[str, Any] = {row["method"]: row for row in self.record["rows"]}
        pruned = rows.get("pruned", {})
        if "classes" not in pruned or len(names) > MOST_CLASSES:
            return None
        counts = pruned["classes"]["confusion"]
        return Table(
            "confusion",
            "Confusion matrix of the pruned network: test rows by class (rows) and prediction "
            "(columns).",
            ("Class", *(f"predicted {name}" for name in names)),
            tuple(
                (name, *(f"{count:,}" for count in row))
                for name, row in zip(names, counts, strict=True)
            ),
        )

    def sizes(self) -> Table | None:
        """What pruning saved; nothing of it is a result where the fit failed."""
        if self.failed:
            return None
        receipt = Receipt.from_dict(self.record["receipt"])
        rows = []
        for label, field in (
            ("Parameters", "num_parameters"),
            ("Non-zero parameters", "num_nonzero"),
            ("Multiply-accumulates per example", "num_macs"),
            ("Bytes on disk", "num_bytes"),
        ):
            before, after = getattr(receipt.before, field), getattr(receipt.after, field)
            ratio = "–" if after == 0 else f"{before / after:.1f}×"
            rows.append((label, f"{before:,}", f"{after:,}", ratio))
        times = (milliseconds(receipt.latency_before), milliseconds(receipt.latency_after))
        rows.append(
            (f"Milliseconds per batch of {receipt.batch_size:,}", *times, f"{receipt.speedup:.1f}×")
        )
        difference = (
            "The weights are re-initialised: there is nothing to compare with."
            if math.isnan(receipt.max_difference)
            else "Largest difference between the outputs of the masked and of the pruned network: "
            f"{receipt.max_difference:.1e} (relative, {receipt.dtype})."
        )
        return Table(
            "sizes",
            "The network before and after pruning.",
            ("Quantity", "Before", "After", "Ratio"),
            tuple(rows),
            f"Times: median and quartiles on {self.record['device']}. {difference}",
        )

    def groups(self) -> Table:
        """Inclusion and what is kept, group by group."""
        return Table(
            "groups",
            "Groups of edges: posterior and pruned network.",
            ("Edges of", "Inclusion (chains)", "Kept by the pruned network"),
            tuple(
                (
                    entry["name"],
                    f"{entry['inclusion']:.2f} ({entry['inclusion_lowest']:.2f} to "
                    f"{entry['inclusion_highest']:.2f})",
                    f"{entry['kept']:,} of {entry['edges']:,}",
                )
                for entry in self.report["groups"]
            ),
        )

    def settings(self) -> Table:
        """All settings, nested ones under dotted names."""
        return Table(
            "settings",
            "Settings of the run.",
            ("Setting", "Value"),
            tuple(_flat(self.record["settings"])),
        )

    def versions(self) -> Table:
        """Versions, device and time."""
        rows = [(name, str(version)) for name, version in self.record["versions"].items()]
        rows += [
            ("device", str(self.record["device"])),
            ("wall time", f"{self.record['wall_seconds']:.0f} s"),
        ]
        return Table("versions", "Versions and machine.", ("Part", "Version"), tuple(rows))

    def tables(self) -> list[Table]:
        """The tables of results, those that there are."""
        found = [
            *(self.inputs(), self.models(), self.classes(), self.confusion(), self.sizes()),
            self.groups(),
        ]
        return [table for table in found if table is not None]


def read_content(folder: Path) -> Content:
    """Read the record of a run folder.

    Args:
        folder: Run folder of ``pyro-relevance table``.

    Raises:
        FileNotFoundError: If it has no record.
        CheckpointError: If the record is damaged, or of a version that wrote no report into it.
    """
    file = folder / "record.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected the run folder of 'pyro-relevance table' with record.json, but {folder} has "
            "none. Check the path, or let the run end first."
        )
    try:
        content = Content(json.loads(file.read_text(encoding="utf-8")))
        content.tables(), content.settings(), content.versions()
        _ = content.about, content.expected, content.status, content.short
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"Expected {file} as this version of 'pyro-relevance table' writes it, but it is "
            f"damaged, of another version or of another command ({error!r}). Run the command "
            "'table' again."
        ) from error
    return content


def _number(value: float | None, digits: int) -> str:
    """Return a number, and a dash for one that is not there."""
    return "–" if value is None else number(float(value), digits).replace("-", "−")


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    text = _number(value, digits)
    return text if error is None else f"{text} ± {_number(error, 2)}"


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            yield f"{before}{name}", ", ".join(map(str, value)) or "–"
        else:
            yield f"{before}{name}", str(value)
