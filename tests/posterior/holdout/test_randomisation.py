"""The holdout test on networks that are known, through the public name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pyro_relevance as pr
from pyro_relevance.posterior.holdout import Verdict
from tests.bounds import assert_frequency

Data = tuple[Tensor, Tensor]


def linear(num_rows: int = 200, seed: int = 0, noise: float = 0.5) -> Data:
    """Four inputs, of which the first two matter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, 4, generator=generator)
    y = x[:, 0] - 0.5 * x[:, 1] + noise * torch.randn(num_rows, generator=generator)
    return x, y


def truth(x: Tensor) -> Tensor:
    """The mean of `linear`'s targets."""
    return x[:, 0] - 0.5 * x[:, 1]


@pytest.mark.exact
def test_it_finds_what_matters_and_nothing_else() -> None:
    tested = pr.holdout_test(truth, linear(), groups=["a", "b", "c", "d"])
    assert tested.relevant == ("a", "b")
    assert tested["a"].p_value == 1 / (1 + tested.max_redraws)
    # A column that the network does not read changes nothing: each redraw is a tie.
    assert tested["c"].p_value == 1.0
    assert tested["c"].verdict is Verdict.NOT_SHOWN
    assert tested["c"].loss_rise == pytest.approx(0.0, abs=1e-6)
    assert tested.num_rows == 200


@pytest.mark.statistical
def test_the_rise_is_that_of_the_closed_form() -> None:
    tested = pr.holdout_test(truth, linear(4000), groups=["a", "b", "c", "d"])
    # E (w x' - w x)^2 = 2 w^2 for independent columns of variance one.
    for name, weight in (("a", 1.0), ("b", 0.5)):
        group = tested[name]
        assert abs(group.loss_rise - 2 * weight**2) < 5 * group.standard_error
        before = tested_root = 0.5
        after = (before**2 + 2 * weight**2) ** 0.5
        assert abs(group.root_rise - (after - tested_root)) < 5 * group.root_standard_error
        assert group.standard_error == pytest.approx(
            group.root_standard_error * 2 * after, rel=0.35
        )


@pytest.mark.statistical
def test_p_values_of_a_fixed_network_are_valid() -> None:
    # The network reads a noise column that is correlated with a relevant one.
    hits = []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(100, 2, generator=generator)
        x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
        y = x[:, 0] + torch.randn(100, generator=generator)
        tested = pr.holdout_test(
            lambda x: 0.8 * x[:, 0] + 0.2 * x[:, 1], (x, y), num_redraws=99, seed=seed
        )
        hits.append([tested["1"].p_value <= level for level in (0.05, 0.1, 0.5)])
    # 0.02 more than nominal: the conditional of a column is estimated from 100 rows.
    frequency = torch.tensor(hits).double()
    nominal = torch.tensor([0.05, 0.1, 0.5]).double()
    assert bool((frequency.mean(0) <= nominal + 0.02 + 3 * (nominal / 400).sqrt()).all())
    assert_frequency(frequency[:, 2], torch.tensor(0.5))


@pytest.mark.exact
def test_copies_cannot_be_told_apart_and_are_not_lost() -> None:
    x, y = linear()
    x = torch.cat([x, x[:, :1]], dim=1)
    names = ["a", "b", "c", "d", "copy of a"]

    def network(x: Tensor) -> Tensor:
        return 0.5 * x[:, 0] + 0.5 * x[:, 4] - 0.5 * x[:, 1]

    tested = pr.holdout_test(network, (x, y), groups=names)
    assert tested.relevant == ("b",)
    assert tested.inseparable == (("a", "copy of a"),)
    assert tested["a"].verdict is tested["copy of a"].verdict is Verdict.INSEPARABLE
    assert tested.companions("a") == ("copy of a",)
    assert tested["a"].explained > 0.99
    text = str(tested)
    assert "a or copy of a: cannot be told apart" in text
    assert tested.to_frame().loc["a", "set"] == "a or copy of a"


@pytest.mark.exact
def test_a_member_that_is_relevant_by_itself_says_nothing_of_the_others() -> None:
    x, _ = linear(400)
    x[:, 1] = x[:, 0] + 0.3 * x[:, 1]  # correlation 0.96
    y = x[:, 0] + 0.1 * x[:, 2]
    tested = pr.holdout_test(lambda x: x[:, 0], (x, y), groups=["a", "near", "c", "d"])
    assert tested["a"].verdict is Verdict.RELEVANT
    assert tested["near"].verdict is Verdict.NOT_SHOWN
    assert tested.inseparable == ()
    assert [(s.members, s.verdict) for s in tested.sets] == [(("a", "near"), Verdict.RELEVANT)]


@pytest.mark.exact
def test_each_fold_is_judged_by_its_own_network() -> None:
    x, y = linear(100)
    folds = [np.arange(40), np.arange(40, 100)]
    tested = pr.holdout_test([truth, lambda x: x[:, 3]], (x, y), folds, groups=list("abcd"))
    assert tested.num_rows == 100
    # Only the first network reads a, only the second d.
    first = pr.holdout_test(truth, (x, y), [folds[0]], groups=list("abcd"))
    # Redraws differ from run to run; both are means over a hundred and more of them.
    assert tested["a"].loss_rise == pytest.approx(0.4 * first["a"].loss_rise, rel=0.2)
    assert abs(tested["d"].loss_rise) > 0


@pytest.mark.exact
def test_classes_and_channels_of_images() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 3, 2, 2, generator=generator)
    logits = 3 * x[:, 1].mean((1, 2))
    y = (torch.rand(300, generator=generator) < logits.sigmoid()).long()
    network = nn.Sequential(nn.Conv2d(3, 2, 2, bias=False), nn.Flatten())
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].weight[1, 1] = 0.75
    channels = {f"channel {c}": range(4 * c, 4 * c + 4) for c in range(3)}
    tested = pr.holdout_test(network, (x, y), groups=channels)
    assert tested.loss == "log"
    assert tested.relevant == ("channel 1",)
    assert tested["channel 1"].root_rise == tested["channel 1"].loss_rise


@pytest.mark.exact
def test_columns_of_one_group_are_redrawn_together() -> None:
    generator = torch.Generator().manual_seed(2)
    level = torch.randint(3, (400,), generator=generator)
    x = torch.cat([nn.functional.one_hot(level, 3).float(), torch.randn(400, 1)], dim=1)
    seen = []

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return x[:, 0] - x[:, 2]

    y = (level == 0).float() - (level == 2).float()
    tested = pr.holdout_test(network, (x, y), groups={"level": [0, 1, 2], "number": [3]})
    assert tested.relevant == ("level",)
    assert all(bool((part[:, :3].sum(1) == 1).all()) for part in seen)


@pytest.mark.property
def test_the_same_seed_gives_the_same_result() -> None:
    data = linear(60)
    first, second = (pr.holdout_test(truth, data, seed=5) for _ in range(2))
    assert first == second
    assert first.to_dict()["groups"] != pr.holdout_test(truth, data, seed=6).to_dict()["groups"]


@pytest.mark.exact
def test_another_rate_changes_the_verdicts_alone() -> None:
    first = pr.holdout_test(truth, linear(40, noise=2.0), rate=0.05, num_redraws=400)
    for rate in (0.001, 0.05, 0.1, 0.9):
        other = pr.holdout_test(truth, linear(40, noise=2.0), rate=rate, num_redraws=400)
        assert first.at_rate(rate) == other
    assert len(first.at_rate(0.001).relevant) < len(first.at_rate(0.9).relevant)
    with pytest.raises(ValueError, match=r"Expected rate in \(0, 1\), but got 0"):
        first.at_rate(0)


@pytest.mark.contract
def test_every_redraw_can_be_the_users_own() -> None:
    class Swap:
        explained = 0.0

        def draw(self, rows: np.ndarray, num_draws: int, generator: object) -> np.ndarray:
            return np.zeros((num_draws, len(rows), 1))

    x, y = linear(50)
    tested = pr.holdout_test(truth, (x, y), redraw=lambda columns: Swap())
    # With a column at zero the loss is that of the network without it.
    expected = ((truth(x) - x[:, 0] - y) ** 2 - (truth(x) - y) ** 2).mean()
    assert tested["0"].loss_rise == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.contract
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": 1.0}, r"Expected rate in \(0, 1\), but got 1.0"),
        ({"correlation": 0.0}, r"Expected correlation in \(0, 1\], but got 0.0"),
        ({"num_redraws": 0}, "Expected num_redraws >= 1, but got 0"),
        ({"redraw": "forest"}, "Expected redraw to be 'ridge', 'boosted'.*'forest'"),
        ({"groups": ["a"]}, "Expected a name of its own for each of the 4 columns, but got 1"),
        ({"groups": {"a": [0, 1], "b": [1]}}, "each column in one group at most"),
        ({"groups": {"a": [4]}}, r"Expected groups of columns 0 .. 3"),
        ({"held_out": [[0, 99]]}, r"Expected numbers of rows from 0 to 29 .*0 .. 99"),
        ({"held_out": [[0.5]]}, "Expected held_out as numbers of rows, but got an array of type"),
        ({"held_out": [[0], [1]]}, "Expected held-out rows for each of the 1 networks, but got 2"),
        ({"networks": [truth, truth]}, "for each of the 2 networks, but got none"),
        ({"loss": lambda p, y: (p - y).mean()}, r"Expected one loss a row, \(30,\), but got \(\)"),
        ({"data": (torch.zeros(30), torch.zeros(30))}, r"Expected x \(num_rows, ...\)"),
    ],
)
def test_wrong_arguments_are_told(changed: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"networks": truth, "data": linear(30)} | changed
    with pytest.raises(ValueError, match=message):
        pr.holdout_test(given.pop("networks"), given.pop("data"), **given)  # type: ignore[arg-type]
