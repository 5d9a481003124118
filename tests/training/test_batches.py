"""Minibatches: every example once in an epoch, shapes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyro_relevance.training.batches import Batches, as_tensors, whole_epochs

CPU = torch.device("cpu")


class Pairs(Dataset):
    """A map-style data set of given items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(2), torch.zeros(())


def _numbered(num_data, *, start=0):
    x = torch.arange(start, start + num_data)
    return torch.stack([x, -x], dim=1).float(), x.clone()


@pytest.mark.contract
def test_as_tensors_accepts_pairs_and_data_sets():
    x, y = _numbered(3)
    for data in ((x, y), [x, y], TensorDataset(x, y), Pairs([(x[i], int(y[i])) for i in range(3)])):
        got_x, got_y = as_tensors(data)
        assert torch.equal(got_x, x)
        assert torch.equal(got_y, y)


@pytest.mark.exact
def test_less_than_a_pass_is_a_share_of_the_examples():
    data = _numbered(10)
    assert whole_epochs(data, 3.4) == (data, 3)
    assert whole_epochs(data, 1) == (data, 1)
    (x, y), passes = whole_epochs(data, 0.4)
    assert passes == 1
    assert y.tolist() == [0, 2, 5, 7]  # evenly spaced: examples may lie sorted by class
    assert torch.equal(x, data[0][y])
    assert whole_epochs(data, 1e-9)[0][1].tolist() == [0]
    assert whole_epochs(data, 0) == (data, 0)
    with pytest.raises(ValueError, match="Expected a number of epochs >= 0, but got -1"):
        whole_epochs(data, -1)


@pytest.mark.contract
def test_as_tensors_takes_data_off_the_graph():
    x, y = torch.zeros(2, 1, requires_grad=True), torch.zeros(2)
    assert not as_tensors((x, y))[0].requires_grad


@pytest.mark.contract
@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (
            DataLoader(TensorDataset(torch.zeros(2, 1), torch.zeros(2))),
            TypeError,
            "but got a DataLoader. Pass loader.dataset and batch_size",
        ),
        (Stream(), TypeError, "map-style data set with a length, but got an iterable one"),
        (Pairs([]), ValueError, "at least one example, but the data set is empty"),
        (Pairs([torch.zeros(2)]), TypeError, "data set of pairs .* its first item is Tensor"),
        (Pairs([(1, 2, 3)]), TypeError, r"its first item is tuple of \['int', 'int', 'int'\]"),
        (
            Pairs([(torch.zeros(1), 0), (torch.zeros(2), 0)]),
            TypeError,
            "numbers of one shape, but got tuple",
        ),
        (Pairs([("a", "b")]), TypeError, "numbers of one shape"),
        (torch.zeros(3), TypeError, r"pair \(x, y\) of tensors .* but got Tensor"),
        ((torch.zeros(3),), TypeError, r"but got tuple of \['Tensor'\]"),
        ((torch.zeros(3), [1, 2, 3]), TypeError, r"but got tuple of \['Tensor', 'list'\]"),
        (
            (torch.zeros(3, 2), torch.zeros(4)),
            ValueError,
            r"x of shape \(3, 2\) and y of shape \(4,\)",
        ),
        ((torch.zeros(()), torch.zeros(())), ValueError, "one row per example"),
        ((torch.zeros(0, 2), torch.zeros(0)), ValueError, "x and y are empty"),
    ],
)
def test_as_tensors_refuses(data, error, text):
    with pytest.raises(error, match=text):
        as_tensors(data)


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 3])
@pytest.mark.parametrize("per_chain", [False, True])
@pytest.mark.parametrize(("num_data", "batch_size"), [(10, 4), (12, 4), (5, 2), (3, 1)])
def test_every_example_once_in_each_epoch(num_chains, per_chain, num_data, batch_size):
    sets = [_numbered(num_data, start=100 * chain) for chain in range(num_chains)]
    batches = Batches(
        sets if per_chain else sets[0],
        num_chains=num_chains,
        batch_size=batch_size,
        device=CPU,
    )
    assert batches.steps_per_epoch == -(-num_data // batch_size)
    orders = []
    for _ in range(3):
        seen = []
        for step in range(batches.steps_per_epoch):
            x, y, stacked = batches.next()
            assert stacked == (per_chain or num_chains > 1)
            x, y = (x, y) if stacked else (x.unsqueeze(0), y.unsqueeze(0))
            rest = num_data - step * batch_size
            assert x.shape == (num_chains, min(batch_size, rest), 2)
            assert torch.equal(x[..., 0], y.float())  # rows of x and y stay together
            seen.append(y)
        epoch = torch.cat(seen, dim=1)
        for chain in range(num_chains):
            expected = sets[chain if per_chain else 0][1]
            assert torch.equal(epoch[chain].sort().values, expected)
        orders.append(epoch)
    if num_data > 3:
        assert not torch.equal(orders[0], orders[1])
    if num_chains > 1 and not per_chain and num_data > 3:
        assert not torch.equal(orders[0][0], orders[0][1])  # chains shuffle on their own


@pytest.mark.exact
@pytest.mark.parametrize("batch_size", [None, 6, 100])
def test_all_examples_in_each_step_are_not_copied(batch_size):
    x, y = _numbered(6)
    batches = Batches((x, y), num_chains=2, batch_size=batch_size, device=CPU)
    got_x, got_y, stacked = batches.next()
    assert got_x.data_ptr() == x.data_ptr()
    assert torch.equal(got_y, y)
    assert not stacked
    assert batches.steps_per_epoch == 1
    each = Batches([(x, y), (x, y)], num_chains=2, batch_size=batch_size, device=CPU)
    assert each.next()[2]


@pytest.mark.exact
def test_state_goes_on_with_the_same_minibatches():
    batches = Batches(_numbered(9), num_chains=2, batch_size=2, device=CPU)
    for _ in range(3):
        batches.next()
    state = batches.state()
    generator = torch.get_rng_state()
    expected = [batches.next()[1] for _ in range(7)]
    other = Batches(_numbered(9), num_chains=2, batch_size=2, device=CPU)
    other.load(state)
    torch.set_rng_state(generator)
    assert all(torch.equal(other.next()[1], y) for y in expected)


@pytest.mark.contract
@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_batch_size_is_checked(batch_size):
    with pytest.raises(ValueError, match=r"batch_size to be a positive integer, or None .* got"):
        Batches(_numbered(3), num_chains=1, batch_size=batch_size, device=CPU)


@pytest.mark.contract
def test_one_data_set_per_chain_of_one_shape():
    sets = [_numbered(4), _numbered(4)]
    with pytest.raises(ValueError, match="each of 3 chains, but got 2. Pass num_chains=2"):
        Batches(sets, num_chains=3, batch_size=2, device=CPU)
    with pytest.raises(ValueError, match="same shapes in all chains"):
        Batches([_numbered(4), _numbered(5)], num_chains=2, batch_size=2, device=CPU)
    x, y = Batches(sets, num_chains=2, batch_size=2, device=CPU).of_chain(1)
    assert torch.equal(x, sets[1][0])
    assert torch.equal(y, sets[1][1])
