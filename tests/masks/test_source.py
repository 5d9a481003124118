"""What rules accept: posteriors, probabilities and scores."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from pyro_relevance import masks
from pyro_relevance.masks import Risk
from tests.small_masks import FakePosterior, count

RULES: dict[str, Callable[..., object]] = {
    "median_probability": masks.median_probability,
    "threshold": lambda source, **k: masks.threshold(source, 0.5, **k),
    "top_fraction": lambda source, **k: masks.top_fraction(source, 0.5, **k),
    "false_discovery_rate": lambda source, **k: masks.false_discovery_rate(source, 0.25, **k),
    "within_cost": lambda source, **k: masks.within_cost(source, 3, cost=count, **k),
    "budget": lambda source, **k: masks.budget(source, num_parameters=3, cost=count, **k),
    "path": lambda source, **k: masks.path(source, **k)[1],
    "signal_to_noise": lambda source, **k: masks.signal_to_noise(source, 0.5, **k),
}
POSTERIOR_RULES = sorted(RULES.keys() - {"signal_to_noise"})


class TestSource:
    @pytest.mark.parametrize("rule", POSTERIOR_RULES)
    def test_posterior_of_one_chain_is_its_probabilities(self, rule):
        p = {"a": torch.tensor([0.9, 0.1]), "b": torch.tensor([[0.8]])}
        posterior = FakePosterior({name: value[None] for name, value in p.items()})
        mask = RULES[rule](posterior)
        assert mask == RULES[rule](p)
        assert mask.risk == mask.with_risk(p).risk
        assert mask["b"].shape == (1, 1)

    @pytest.mark.parametrize("rule", POSTERIOR_RULES)
    def test_several_chains(self, rule):
        posterior = FakePosterior({"inputs": torch.rand(3, 5)})
        with pytest.raises(ValueError, match="not the same units") as error:
            RULES[rule](posterior)
        assert "got 3 chains" in str(error.value)
        assert "posterior.chain(i) (or fit.best_chain)" in str(error.value)
        assert 'relevance.pooled(posterior, groups=("inputs",))' in str(error.value)

    @pytest.mark.parametrize("rule", sorted(RULES))
    def test_other_groups_are_kept_whole(self, rule):
        scores = {"a": torch.zeros(2), "b": torch.tensor([0.6, 0.0]), "c": torch.zeros(1)}
        if rule in ("within_cost", "budget"):
            scores["c"] = torch.zeros(0)
        mask = RULES[rule](scores, groups=("b",))
        assert mask["a"].tolist() == [True, True]
        assert bool(mask["c"].all())
        assert mask["b"].tolist() == [True, False] or rule == "false_discovery_rate"
        assert mask.rule.endswith(", in b (other groups kept whole)") or rule == "path"

    @pytest.mark.parametrize("rule", sorted(RULES))
    def test_bad_sources(self, rule):
        apply = RULES[rule]
        with pytest.raises(ValueError, match="edge of group 'bad', but got NaN at 1 of 2 edges"):
            apply({"good": torch.tensor([0.5]), "bad": torch.tensor([0.5, math.nan])})
        with pytest.raises(ValueError, match=r"groups out of \['a'\], but got \['x'\]"):
            apply({"a": torch.tensor([0.5])}, groups=("a", "x"))
        with pytest.raises(TypeError, match=r"but got the text 'inputs'. Write \('inputs',\)"):
            apply({"inputs": torch.tensor([0.5])}, groups="inputs")
        with pytest.raises(ValueError, match="at least one candidate edge"):
            apply({"a": torch.tensor([0.5])}, groups=())
        with pytest.raises(ValueError, match="at least one candidate edge"):
            apply({})
        with pytest.raises(TypeError, match="real tensor of scores for group 'a', but got list"):
            apply({"a": [0.5]})
        with pytest.raises(TypeError, match="a posterior or a mapping .* but got Tensor"):
            apply(torch.tensor([0.5]))

    @pytest.mark.parametrize("rule", ["median_probability", "false_discovery_rate"])
    def test_scores_that_are_no_probabilities(self, rule):
        with pytest.raises(ValueError, match=r"Expected probabilities in \[0, 1\], but group 'a'"):
            RULES[rule]({"a": torch.tensor([0.5, 1.5])})

    def test_plain_scores_state_no_risk_until_given_probabilities(self):
        mask = masks.threshold({"a": torch.tensor([3.0, 1.0])}, 2.0)
        assert mask.risk is None
        assert mask.with_risk({"a": torch.tensor([0.75, 0.5])}).risk == Risk(0.25, 0.25, 0.5, 0.5)

    def test_source_is_not_changed(self):
        scores = {"a": torch.tensor([0.9, 0.1], requires_grad=True)}
        masks.path(scores)
        masks.median_probability(scores)
        assert scores["a"].tolist() == pytest.approx([0.9, 0.1])
