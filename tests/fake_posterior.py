"""A posterior that was never fitted: what `report` and `plots` need of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import sympy  # noqa: F401  torch loads it at the first trace, and it adds a warning filter
import torch
from torch import Tensor, nn

from pyro_relevance.edges.find import Edges, find_edges
from pyro_relevance.model import likelihoods, priors

FEATURES = (
    "CRIM",
    "ZN",
    "INDUS",
    "CHAS",
    "NOX",
    "RM",
    "AGE",
    "DIS",
    "RAD",
    "TAX",
    "PTRATIO",
    "B",
    "LSTAT",
)


@dataclass
class FakePosterior:
    """Mean-field gates, constant probabilities per chain, point weights, Gaussian y of scale 1."""

    network: nn.Sequential
    edges: Edges
    num_chains: int = 2
    history: SimpleNamespace | None = None
    classes: bool = False
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.probability = {}
        for group in self.edges.groups:
            logit = 3.0 * torch.randn(group.shape, generator=generator)
            chains = logit + 0.4 * torch.randn((self.num_chains, *group.shape), generator=generator)
            self.probability[group.name] = chains.sigmoid()

    def sample(self, num_samples: int = 100, *, seed: int = 0) -> SimpleNamespace:
        self.calls.append(f"sample({num_samples})")
        return self._draws(num_samples, seed, self.probability)

    def sample_prior(self, num_samples: int = 100, *, seed: int = 0) -> SimpleNamespace:
        half = {name: torch.full_like(p, 0.5) for name, p in self.probability.items()}
        return self._draws(num_samples, seed, {name: p[:1] for name, p in half.items()})

    @property
    def model(self) -> SimpleNamespace:
        return SimpleNamespace(
            network=self.network,
            gate_prior=None,
            weight_prior=priors.PointWeights(),
            relaxation=None,
            likelihood=likelihoods.Gaussian(1.0),
        )

    @property
    def guide(self) -> nn.Module:
        return nn.Identity()

    @property
    def state(self) -> dict[str, Tensor]:
        return {"model.prior_log_odds": torch.zeros(self.num_chains, self.edges.num_edges)}

    def chain(self, index: int) -> SimpleNamespace:
        law = likelihoods.Categorical() if self.classes else likelihoods.Gaussian(1.0)
        return SimpleNamespace(likelihood=law)

    def sample_sites(self, num_samples: int = 100, *, seed: int = 0) -> dict[str, Tensor]:
        gates = self._draws(num_samples, seed, self.probability).gates
        joined = torch.cat([gates[group.name].flatten(2) for group in self.edges.groups], -1)
        generator = torch.Generator().manual_seed(seed)
        return {"gate": (2 * joined - 1) * (0.1 + torch.rand(joined.shape, generator=generator))}

    def predict(self, x, *, num_samples=100, seed=0, mask=None) -> SimpleNamespace:
        outputs = self._outputs(x, num_samples, seed, mask)
        if self.classes:
            mean = outputs.softmax(-1)
            return SimpleNamespace(outputs=outputs, mean=mean, sample=mean.argmax(-1))
        noise = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(seed))
        return SimpleNamespace(outputs=outputs, mean=outputs, sample=outputs + noise)

    def log_likelihood(self, x, y, *, num_samples=100, seed=0, mask=None) -> Tensor:
        outputs = self._outputs(x, num_samples, seed, mask)
        if self.classes:
            index = y.reshape(-1, 1).expand(*outputs.shape[:3], 1)
            return outputs.log_softmax(-1).gather(-1, index)[..., 0]
        normal = torch.distributions.Normal(outputs, 1.0)
        return normal.log_prob(y.reshape(len(y), -1)).sum(-1)

    def _draws(
        self, num_samples: int, seed: int, probability: dict[str, Tensor]
    ) -> SimpleNamespace:
        generator = torch.Generator().manual_seed(seed)
        spread = {
            n: p[:, None].expand(-1, num_samples, *p.shape[1:]) for n, p in probability.items()
        }
        gates = {n: torch.bernoulli(p, generator=generator) for n, p in spread.items()}
        weights = {
            name: weight.detach().expand(self.num_chains, 1, *weight.shape)
            for name, weight in self.network.named_parameters()
        }
        return SimpleNamespace(gates=gates, inclusion_probability=spread, weights=weights)

    def _outputs(self, x: Tensor, num_samples: int, seed: int, mask) -> Tensor:
        gates = self._draws(num_samples, seed, self.probability).gates
        parameters = dict(self.network.named_parameters())
        rows = []
        for chain in range(self.num_chains):
            for draw in range(num_samples):
                own = {
                    n: g[chain, draw] * (1 if mask is None else mask[n]) for n, g in gates.items()
                }
                folded = {**parameters, **self.edges.fold(parameters, own)}
                rows.append(torch.func.functional_call(self.network, folded, (x,)).detach())
        return torch.stack(rows).reshape(self.num_chains, num_samples, *rows[0].shape)


def fake_history(num_chains: int, num_steps: int = 50) -> SimpleNamespace:
    """A training history over every tenth step."""
    progress = np.linspace(0, 1, num_steps)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(num_chains, num_steps))
    return SimpleNamespace(
        step=10 * np.arange(num_steps),
        loss=1200 + 30000 * np.exp(-12 * progress) + 40 * noise,
        temperature=0.1**progress,
        kl_weight=np.minimum(1, 5 * progress),
        expected_size=60 - 40 * progress + noise,
    )


def fake_posterior(
    sizes: Sequence[int] = (13, 12, 1),
    granularity: Sequence[str] = ("input", "unit"),
    *,
    num_chains: int = 2,
    classes: bool = False,
    input_index: Sequence[int] | None = None,
) -> FakePosterior:
    """A fake posterior of a ReLU network of `sizes`, with Boston's feature names where they fit."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for num_in, num_out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    num_gates = sizes[0] if input_index is None else max(input_index) + 1
    named = "input" in granularity and num_gates <= len(FEATURES)
    edges = find_edges(
        network,
        example_input=torch.zeros(1, sizes[0]),
        granularity=granularity,
        input_labels=FEATURES[:num_gates] if named else None,
        input_index=input_index,
    )
    return FakePosterior(network, edges, num_chains, fake_history(num_chains), classes)


def fake_data(posterior: FakePosterior, num_data: int = 20) -> tuple[Tensor, Tensor]:
    """Inputs and targets that fit the network."""
    generator = torch.Generator().manual_seed(1)
    first = next(posterior.network.parameters())
    x = torch.randn(num_data, first.shape[1], generator=generator)
    y = posterior.network(x).detach()
    if posterior.classes:
        return x, y.argmax(-1)
    return x, y + torch.randn(y.shape, generator=generator)
