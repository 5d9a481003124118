"""Are inclusion probabilities right? Guides against the exact posterior over all gates.

Data are drawn from the very model that is fitted (prior = truth): a linear model with 2^10
configurations of gates, weights averaged out in closed form, and a logistic one with 2^6, by
quadrature. Every guide has the same steps. The optimum of the spike-and-slab family, by exact
coordinate ascent, says which part of an error is the family's and which that of the training.

    python -m analysis.run_enumeration
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.command import Command
from analysis.enumeration import (
    Exact,
    Problem,
    exact_linear,
    exact_logistic,
    make_problem,
    spike_and_slab_optimum,
)
from analysis.records import row, write_record
from pyro_relevance import Fit, diagnostics, guides, likelihoods, priors, schedules
from pyro_relevance.edges.find import find_edges
from pyro_relevance.model.model import Noise, RelevanceModel
from pyro_relevance.model.relaxations import Concrete, Hardening, Relaxation
from pyro_relevance.training.preparation import Guide
from pyro_relevance.training.svi import fit


@dataclass(frozen=True)
class Settings:
    """What the experiment does.

    Args:
        num_sets: Data sets of each kind of linear model.
        num_sets_logistic: Of logistic ones, whose exact posteriors take longer.
        num_data: Rows of a data set; a logistic model has the last of these.
        correlations: Of each pair of inputs.
        num_inputs: Gates of a linear model.
        num_inputs_logistic: Gates of a logistic model.
        probability: That an input matters, in the data and in the prior.
        weight_scale: Standard deviation of a weight, in the data and in the prior.
        num_steps: Steps of Adam on all rows.
        learning_rate: For weights; it falls along a cosine from 30 % of the steps on.
        gate_learning_rate: For gates.
        num_samples: Draws for an ELBO.
        first_seed: Seed of the first data set.
        seed: Seed of the fits.
    """

    num_sets: int = 60
    num_sets_logistic: int = 20
    num_data: tuple[int, ...] = (50, 200)
    correlations: tuple[float, ...] = (0.0, 0.5, 0.9)
    num_inputs: int = 10
    num_inputs_logistic: int = 6
    probability: float = 0.3
    weight_scale: float = 1.0
    num_steps: int = 2000
    learning_rate: float = 0.02
    gate_learning_rate: float = 0.05
    num_samples: int = 400
    first_seed: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Method:
    """A guide with the settings that it is fitted by."""

    guide: Guide
    relaxation: Relaxation
    noise: Noise = "per_example"


METHODS = {
    "spike and slab": Method(guides.SpikeAndSlabGuide, Hardening()),
    "spike and slab, one draw of the gates a step": Method(
        guides.SpikeAndSlabGuide, Hardening(), noise="shared"
    ),
    "spike and slab, concrete gates": Method(guides.SpikeAndSlabGuide, Concrete()),
    "spike and slab, hard gates throughout": Method(guides.SpikeAndSlabGuide, Hardening(math.inf)),
    "mean field": Method(guides.MeanFieldGuide, Hardening()),
    # Its reverse model reads the gates, which are those of one draw.
    "low rank": Method(partial(guides.LowRankGuide, rank=3), Hardening(), noise="shared"),
}


def fitted(problems: Sequence[Problem], method: Method, settings: Settings, binary: bool) -> Fit:
    """Fit a guide to all data sets in one program, in float32 as users do."""
    num_data, num_inputs = problems[0].x.shape
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = nn.Linear(num_inputs, 1, bias=False)
    likelihood: likelihoods.Likelihood = likelihoods.Gaussian(1.0, learn_noise=False)
    model = RelevanceModel(
        network,
        find_edges(network, granularity="input"),
        likelihood=likelihoods.Bernoulli() if binary else likelihood,
        num_data=num_data,
        gate_prior=priors.IndependentPrior(problems[0].log_odds),
        weight_prior=priors.GaussianWeights(settings.weight_scale),
        relaxation=method.relaxation,
    )
    decay = schedules.within(schedules.cosine(1.0, 0.001), start=0.3)
    return fit(
        model,
        [(p.x.float(), p.y.float()) for p in problems],
        guide=method.guide,
        num_chains=len(problems),
        num_epochs=settings.num_steps,
        batch_size=None,
        learning_rate=settings.learning_rate,
        gate_learning_rate=settings.gate_learning_rate,
        noise=method.noise,
        schedules=schedules.Schedules(learning_rate=decay),
        seed=settings.seed,
    )


def errors(found: Sequence[Tensor], exact: Sequence[Exact]) -> dict[str, list[float]]:
    """Return mean and largest error of the inclusion probabilities of each data set."""
    pairs = zip(found, exact, strict=True)
    distance = [(p - e.inclusion_probability).abs() for p, e in pairs]
    return {
        "mean_error": [float(d.mean()) for d in distance],
        "largest_error": [float(d.max()) for d in distance],
    }


def reliability(found: Sequence[Tensor], problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the reliability table as lists, with the expected calibration error."""
    relevant = torch.stack([p.relevant for p in problems])
    table = diagnostics.calibration(torch.stack(list(found)).double(), relevant)
    names = ("count", "predicted", "observed", "standard_error")
    columns = {name: np.asarray(getattr(table, name)).tolist() for name in names}
    return columns | {"expected_calibration_error": table.expected_calibration_error}


@dataclass(eq=False)
class Task:
    """Data sets of one kind, their exact posteriors, and what has been found of them."""

    name: str
    problems: list[Problem]
    exact: list[Exact]
    binary: bool
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, method: str, found: Sequence[Tensor], elbo: Sequence[float], **more: Any) -> None:
        """Add the row of a method."""
        metrics = errors(found, self.exact)
        gaps = zip(self.exact, elbo, strict=True)
        metrics["elbo_gap"] = [e.log_evidence - bound for e, bound in gaps]
        seeds = range(len(self.problems))
        self.rows.append(
            row(method, self.name, seeds, metrics, worst=max(metrics["largest_error"]), **more)
        )
        self.calibration[f"{self.name}, {method}"] = reliability(found, self.problems)
        shown = "  ".join(
            f"{name} {m['mean']:.3f} +- {m['se']:.3f}"
            for name, m in self.rows[-1]["metrics"].items()
        )
        ece = self.calibration[f"{self.name}, {method}"]["expected_calibration_error"]
        print(f"{self.name:24s} {method:46s} {shown}  calibration {ece:.3f}", flush=True)


def make_task(num_data: int, correlation: float, settings: Settings, *, binary: bool) -> Task:
    """Return data sets with their exact posteriors."""
    size = settings.num_inputs_logistic if binary else settings.num_inputs
    number = settings.num_sets_logistic if binary else settings.num_sets
    problems = [
        make_problem(
            num_data,
            size,
            correlation,
            seed=settings.first_seed + index,
            probability=settings.probability,
            weight_scale=settings.weight_scale,
            logistic=binary,
        )
        for index in range(number)
    ]
    solve: Callable[[Problem], Exact] = exact_logistic if binary else exact_linear
    name = f"{'logistic' if binary else 'linear'}, {num_data} rows, {correlation}"
    task = Task(name, problems, [solve(problem) for problem in problems], binary)
    evidence = [e.log_evidence for e in task.exact]
    task.add("exact", [e.inclusion_probability for e in task.exact], evidence)
    if not binary:
        best = [spike_and_slab_optimum(problem) for problem in problems]
        found = [b.inclusion_probability for b in best]
        task.add("optimum of the spike-and-slab family", found, [b.elbo for b in best])
    return task


def add_fit(task: Task, name: str, method: Method, settings: Settings) -> None:
    """Fit a guide, and add its row."""
    started = time.perf_counter()
    posterior = fitted(task.problems, method, settings, task.binary).posterior
    seconds = time.perf_counter() - started
    found = list(posterior.inclusion_probability()["inputs"].double())
    elbos = [
        float(posterior.chain(i).elbo(p.x.float(), p.y.float(), num_samples=settings.num_samples))
        for i, p in enumerate(task.problems)
    ]
    task.add(name, found, elbos, total_seconds=seconds)


def run(settings: Settings, folder: Path, *, command: str) -> Path:
    """Run the experiment and write its record."""
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    calibration: dict[str, Any] = {}
    for binary in (False, True):
        for num_data in settings.num_data[-1:] if binary else settings.num_data:
            for correlation in settings.correlations:
                task = make_task(num_data, correlation, settings, binary=binary)
                for name, method in METHODS.items():
                    add_fit(task, name, method, settings)
                rows += task.rows
                calibration |= task.calibration
    return write_record(
        "enumeration",
        command=command,
        settings=dataclasses.asdict(settings),
        rows=rows,
        wall_seconds=time.perf_counter() - started,
        folder=folder,
        calibration=calibration,
    )


def main() -> None:
    """Read the command line and run."""
    command = Command("run_enumeration", __doc__, smoke="three sets, few steps")
    command.add_argument("--seed", type=int, default=0)
    arguments = command.parse_args()
    settings = Settings(seed=arguments.seed)
    if arguments.smoke:
        settings = dataclasses.replace(
            settings,
            num_sets=3,
            num_sets_logistic=2,
            num_data=(30,),
            correlations=(0.5,),
            num_inputs_logistic=3,
            num_steps=20,
            num_samples=5,
        )
    print(run(settings, arguments.out, command=command.line()))


if __name__ == "__main__":
    main()
