"""Random crops and flips: exact windows, exact mirrors, and runs that stay repeatable."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import pyro_relevance as pr
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.errors import CheckpointError
from pyro_relevance.training.batches import Batches
from pyro_relevance.training.checkpoint import Checkpoint
from tests.bounds import FAILURE_RATE
from tests.small_fits import same

CPU = torch.device("cpu")


def _images(num_data: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(num_data, 2, 4, 5)`` images of all different values, and their numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_data, 2, 4, 5, generator=generator), torch.arange(num_data) % 3


@pytest.mark.exact
@pytest.mark.parametrize("padding", [1, 3])
def test_each_crop_is_a_window_of_its_padded_image(padding):
    x, _ = _images(300)
    cropped = RandomCrop(padding, fill=7.5)(x)
    padded = functional.pad(x, (padding,) * 4, value=7.5)
    windows = padded.unfold(2, 4, 1).unfold(3, 5, 1)  # (num_data, channels, top, left, 4, 5)
    matches = (windows == cropped[:, :, None, None]).all(dim=(1, 4, 5)).flatten(1)
    assert bool((matches.sum(1) == 1).all())
    counts = matches.sum(0)
    expected = 300 / (2 * padding + 1) ** 2
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert (
        torch.special.gammaincc(
            torch.tensor((matches.shape[1] - 1) / 2), torch.tensor(statistic / 2)
        )
        > FAILURE_RATE
    )


@pytest.mark.exact
def test_flips_are_exact():
    x, _ = _images(200)
    flipped = RandomFlip()(x)
    kept = (flipped == x).all(dim=(1, 2, 3))
    mirrored = (flipped == x.flip(3)).all(dim=(1, 2, 3))
    assert torch.equal(kept, ~mirrored)
    assert 50 < int(kept.sum()) < 150
    assert torch.equal(RandomFlip(0.0)(x), x)
    assert torch.equal(RandomFlip(1.0)(x), x.flip(3))


@pytest.mark.exact
def test_steps_run_in_order():
    x, _ = _images(3)
    both = InOrder((lambda x: x + 1, lambda x: 2 * x))
    assert torch.equal(both(x), 2 * (x + 1))


@pytest.mark.exact
def test_the_same_seed_gives_the_same_images():
    x, _ = _images(50)
    augment = InOrder((RandomCrop(2), RandomFlip()))
    torch.manual_seed(5)
    first = augment(x)
    torch.manual_seed(5)
    assert torch.equal(augment(x), first)
    assert not torch.equal(augment(x), first)


@pytest.mark.contract
def test_arguments_are_checked():
    for padding in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match=r"padding as a positive number of pixels, but got"):
            RandomCrop(padding)
    with pytest.raises(ValueError, match="Expected a finite fill, but got nan"):
        RandomCrop(1, float("nan"))
    with pytest.raises(ValueError, match=r"probability in \[0, 1\], but got 1.5"):
        RandomFlip(1.5)
    for augment in (RandomCrop(1), RandomFlip()):
        with pytest.raises(ValueError, match=r"Expected images of shape .* but got \(8, 20\)"):
            augment(torch.zeros(8, 20))


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("per_chain", [False, True])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_batches_are_augmented_and_keep_their_shape(num_chains, per_chain, batch_size):
    sets = [_images(9, seed=chain) for chain in range(num_chains)]
    seen = []

    def augment(x):
        seen.append(x.shape)
        return x + 100

    def make(change):
        data = sets if per_chain else sets[0]
        return Batches(
            data, num_chains=num_chains, batch_size=batch_size, device=CPU, augment=change
        )

    torch.manual_seed(0)
    plain = make(None).next()
    torch.manual_seed(0)
    changed = make(augment).next()
    assert torch.equal(changed[0], plain[0] + 100)
    assert torch.equal(changed[1], plain[1])
    assert changed[2] == plain[2]
    stacked = num_chains if plain[2] else 1
    assert seen == [(stacked * (batch_size or 9), 2, 4, 5)]


@pytest.mark.contract
@pytest.mark.parametrize(
    "augment", [lambda x: x[:, :1], lambda x: x.double(), lambda x: x.flatten(1)]
)
def test_shape_and_type_must_stay(augment):
    batches = Batches(_images(9), num_chains=1, batch_size=4, device=CPU, augment=augment)
    with pytest.raises(ValueError, match=r"Expected augment to keep the shape \(4, 2, 4, 5\)"):
        batches.next()


def _fit(augment=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(40, 6), nn.ReLU(), nn.Linear(6, 3))
    model = pr.RelevanceModel(
        network, pr.find_edges(network), likelihood=pr.likelihoods.Categorical(), num_data=30
    )
    return pr.fit(
        model,
        _images(30),
        **{
            "num_epochs": 30,
            "batch_size": 8,
            "augment": augment,
            "replay": True,
            "seed": 1,
            **settings,
        },
    )


@pytest.mark.exact
@pytest.mark.parametrize("num_chains", [1, 2])
def test_fit_is_repeatable_and_replayed(num_chains):
    augment = RandomCrop(1)
    fit = _fit(augment, num_chains=num_chains)
    again = _fit(RandomCrop(1), num_chains=num_chains)
    unrecorded = _fit(augment, num_chains=num_chains, replay=False)
    assert same(fit.posterior.state, again.posterior.state)
    assert same(fit.posterior.state, unrecorded.posterior.state)
    assert not same(fit.posterior.state, _fit(num_chains=num_chains).posterior.state)


@pytest.mark.exact
def test_an_interrupted_fit_goes_on_with_the_same_images(tmp_path):
    where = Checkpoint(tmp_path / "run", interval=0)

    def interrupt(state):
        if state.step == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fit(RandomCrop(1), checkpoint=where, callbacks=[interrupt])
    resumed = _fit(RandomCrop(1), checkpoint=where)
    assert same(resumed.posterior.state, _fit(RandomCrop(1)).posterior.state)
    with pytest.raises(CheckpointError, match="other data, settings or seed"):
        _fit(RandomCrop(2), checkpoint=where)
