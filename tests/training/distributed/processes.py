"""What two processes of torchrun do for ``test_distributed``: fits, and their numbers in a file."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from pyro.infer import TraceMeanField_ELBO
from torch import distributed

import pyro_relevance as pr
from tests.small_fits import make_model, make_network, regression


class StoppedError(Exception):
    """Raised by a callback, in place of a loss of power."""


def stop_at(step: int) -> Any:
    """Return a callback that fails at a step."""

    def callback(state: Any) -> None:
        if state.step == step:
            raise StoppedError

    return callback


def plain_model() -> Any:
    """Return a model without gates and noise: its training is gradient descent."""
    x, y = regression()
    network = make_network()
    return pr.RelevanceModel(
        network,
        pr.find_edges(network, granularity="unit"),
        likelihood=pr.likelihoods.Gaussian(0.5, learn_noise=False),
        num_data=len(x),
        gate_prior=None,
        weight_prior=pr.priors.PointWeights(1.0),
    )


def fit(model: Any, **keywords: Any) -> pr.Fit:
    """Fit a model on the examples of the tests, in as many processes as there are."""
    keywords = {"distributed": distributed.is_initialized(), "progress": False, **keywords}
    return pr.fit(model, regression(), **keywords)


def flat(found: pr.Fit) -> list[float]:
    """Return all parameters and the history of losses."""
    state = found.posterior.state
    tensors = [state[name].double().reshape(-1) for name in sorted(state)]
    return torch.cat([*tensors, torch.as_tensor(found.history.loss).reshape(-1)]).tolist()


def interrupted(path: Path) -> pr.Fit:
    """Return a fit that was stopped in the middle, and went on from its file."""
    keywords = {"num_epochs": 30, "batch_size": 20, "seed": 1}
    checkpoint = pr.Checkpoint(path, interval=0.0)
    with contextlib.suppress(StoppedError):
        fit(make_model(), checkpoint=checkpoint, callbacks=[stop_at(70)], **keywords)
    return fit(make_model(), checkpoint=checkpoint, callbacks=[stop_at(10**6)], **keywords)


def draws() -> list[int]:
    """Return the random numbers of this process, by the state of the generator after two steps."""
    seen: list[int] = []
    fit(
        make_model(),
        num_epochs=1,
        batch_size=24,
        callbacks=[lambda state: seen.append(int(torch.get_rng_state().long().sum()))],
    )
    return seen


def refused(**keywords: Any) -> str:
    """Return what is said to a call."""
    try:
        fit(make_model(), **keywords)
    except ValueError as error:
        return str(error)
    return ""


def stopped_early() -> pr.Fit:
    """Return a fit under early stopping; only the first process's draws may decide."""
    x, y = regression()
    stopping = pr.callbacks.EarlyStopping((x[:20], y[:20]), patience=1, interval=5)
    return fit(make_model(), num_epochs=200, batch_size=None, callbacks=[stopping], seed=2)


def main() -> None:
    """Write the numbers of this process."""
    folder = Path(sys.argv[1])
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    state = torch.get_rng_state()
    keywords = {"num_epochs": 30, "batch_size": 20, "seed": 1}
    gated = fit(make_model(), **keywords)
    chains = fit(make_model(), num_chains=3, **keywords)
    apart = fit(
        make_model(make_network(batch_norm=True)),
        num_chains=2,
        elbo=TraceMeanField_ELBO(),
        **keywords,
    )
    early = stopped_early()
    found = {
        "plain": flat(fit(plain_model(), num_epochs=40, batch_size=None, learning_rate=0.01)),
        "gated": flat(gated),
        "chains": flat(chains),
        "interrupted": flat(interrupted(folder / "checkpoint.safetensors")),
        "early": [*flat(early), float(early.num_steps)],
        "draws": draws(),
        "apart": flat(apart),
        "refused": refused(batch_size=7),
        "different": refused(num_epochs=3 + distributed.get_rank()),
        "same generator": torch.equal(torch.get_rng_state(), state),
        "long": {
            name: probability[0].tolist()
            for name, probability in fit(
                make_model(), num_epochs=400, batch_size=20, learning_rate=0.01
            )
            .posterior.inclusion_probability()
            .items()
        },
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
