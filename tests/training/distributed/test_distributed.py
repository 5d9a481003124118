"""One fit in two processes (gloo): the same gradients, own noise, one file, one result."""

from __future__ import annotations

import json

import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.training.batches import Batches
from pyro_relevance.training.distributed.ranks import Ranks
from tests.small_fits import make_model, regression
from tests.training.distributed import processes
from tests.two_processes import in_two_processes

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch was built without distributed"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    in_two_processes("-m", "tests.training.distributed.processes", str(folder))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.exact
def test_without_noise_two_processes_take_the_steps_of_one(found):
    one = processes.flat(
        processes.fit(processes.plain_model(), num_epochs=40, batch_size=None, learning_rate=0.01)
    )
    assert found[0]["plain"] == pytest.approx(one, rel=1e-4, abs=1e-5)


@pytest.mark.exact
@pytest.mark.parametrize("name", ["plain", "gated", "chains", "apart", "interrupted", "early"])
def test_all_processes_have_the_same_result(found, name):
    assert found[0][name] == found[1][name]


@pytest.mark.exact
def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(found):
    assert found[0]["interrupted"] == found[0]["gated"]


@pytest.mark.exact
def test_each_process_draws_its_own_noise(found):
    assert not set(found[0]["draws"]) & set(found[1]["draws"])


@pytest.mark.statistical
def test_the_posterior_is_that_of_one_process(found):
    fits = [
        processes.fit(
            make_model(), num_epochs=400, batch_size=20, learning_rate=0.01, seed=seed
        ).posterior.inclusion_probability()
        for seed in range(4)
    ]
    for name, probability in found[0]["long"].items():
        each = torch.stack([one[name][0] for one in fits])
        spread = each.amax(0) - each.amin(0)
        difference = (torch.tensor(probability) - each.mean(0)).abs()
        assert (difference <= spread + 0.1).all(), (name, difference, spread)


@pytest.mark.contract
def test_a_batch_that_cannot_be_shared_is_refused(found):
    assert "2 processes can share evenly, but got 7" in found[0]["refused"]


@pytest.mark.contract
def test_different_calls_are_refused(found):
    assert "the same call in all processes" in found[0]["different"]


@pytest.mark.contract
def test_random_numbers_of_the_user_stay(found):
    assert all(of_process["same generator"] for of_process in found)


@pytest.mark.contract
def test_without_a_group_it_is_refused():
    with pytest.raises(ValueError, match=r"init_process_group\(\) first"):
        pr.fit(make_model(), regression(), distributed=True)


@pytest.mark.contract
def test_training_to_a_budget_is_of_one_process():
    x, y = regression()
    with pytest.raises(ValueError, match="Expected distributed=False"):
        pr.fit_to_budget(
            make_model(granularity="weight"), (x, y), pr.Budget(num_parameters=10), distributed=True
        )


def share_of(ranks, data):
    num_chains = len(data) if isinstance(data, list) else 1
    device = torch.device("cpu")
    return Batches(data, num_chains=num_chains, batch_size=None, device=device, ranks=ranks)


@pytest.mark.property
@pytest.mark.parametrize(("length", "number"), [(7, 2), (8, 2), (3, 3), (10, 4)])
def test_shares_are_all_examples_and_equally_long(length, number):
    x = torch.arange(length).unsqueeze(1).float()
    shares = [share_of(Ranks(rank, number), (x, x[:, 0])).x for rank in range(number)]
    assert len({len(share) for share in shares}) == 1
    together = torch.cat(shares).flatten().tolist()
    assert set(together) == set(range(length))
    assert len(together) < length + number


@pytest.mark.exact
def test_each_chain_has_a_share_of_its_own_examples():
    pairs = [(torch.full((4, 1), float(i)), torch.arange(4.0)) for i in range(2)]
    shares = share_of(Ranks(1, 2), pairs)
    assert [float(x[0, 0]) for x in shares.x] == [0.0, 1.0]
    assert [y.tolist() for y in shares.y] == [[1.0, 3.0], [1.0, 3.0]]
