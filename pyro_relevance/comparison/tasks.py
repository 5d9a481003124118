"""Tasks of a comparison: data, recipe, a network built by people, and a space to search."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyro_relevance.comparison.baselines import Recipe
from pyro_relevance.comparison.baselines.recipe import seeded_network
from pyro_relevance.data import datasets, networks
from pyro_relevance.data.augmentation import InOrder, RandomCrop, RandomFlip
from pyro_relevance.data.images import CIFAR10_SD, MNIST_MEAN, MNIST_SD
from pyro_relevance.data.root import data_root
from pyro_relevance.edges.size import num_macs
from pyro_relevance.edges.size import num_parameters as count_parameters
from pyro_relevance.graphs import spaces
from pyro_relevance.model import likelihoods
from pyro_relevance.model.precision import Precision
from pyro_relevance.model.priors import DescriptionLengthPrior, GatePrior, IndependentPrior
from pyro_relevance.search.tasks import SearchData, image_data, make_space, table_data

__all__ = ["TASKS", "Task", "TaskName", "make_task"]

TaskName = Literal["boston", "mnist", "cifar10", "nasbench201"]
TASKS: tuple[str, ...] = get_args(TaskName)


@dataclass(frozen=True, eq=False)
class Task:
    """What all methods are given.

    Args:
        name: Name of the task.
        data: The examples; test examples are read once for each finished network.
        recipe: The training that all methods share.
        make_space: Makes the relaxed network in which architectures are searched, as of
            ``search_structure``.
        make_network: Makes the network built by people, with random weights; ``None`` where there
            is none to prune.
        make_small_network: Makes a network built by people within the limits, with random weights.
        num_parameters: Largest number of parameters after pruning of weights.
        num_macs: Largest number of multiply-accumulates after pruning of units; ``None`` where the
            limit on parameters holds for them, too.
        units: Granularity of methods that prune units.
        unit_prior: Prior over their gates.
        weight_log_odds: Prior log-odds of the gate of a single weight, in nats.
        granularity: What our search gates beside operations, where weights are not shared.
        shared: Whether the weights of the space are shared by architectures that they do not suit.
        cells_of_two_edges: Whether DARTS keeps the two strongest edges into each node, as in its
            paper, instead of the strongest operation of each edge.
        input_unit: A tenth of the range of an input, in the unit of the encoded inputs: the size of
            the changes by which robustness is measured.
    """

    name: str
    data: SearchData
    recipe: Recipe
    make_space: Callable[[bool], nn.Module]
    make_network: Callable[[], nn.Module] | None = None
    make_small_network: Callable[[], nn.Module] | None = None
    num_parameters: int = 0
    num_macs: int | None = None
    units: tuple[str, ...] = ("unit",)
    unit_prior: GatePrior = IndependentPrior(-1.0)
    weight_log_odds: float = -1.0
    granularity: tuple[str, ...] = ("unit",)
    shared: bool = False
    cells_of_two_edges: bool = False
    input_unit: float = 0.1

    def score(self, network: nn.Module, x: Tensor, y: Tensor) -> float:
        """Return percent wrong, or the RMSE in the unit of the target.

        Args:
            network: A network, in evaluation mode.
            x: ``(num_data, ...)`` inputs.
            y: ``(num_data,)`` targets.
        """
        return self.data.error(network, x, y)

    def until(self, deadline: float) -> Task:
        """Return the task with a time at which a method has to be done.

        Args:
            deadline: In seconds of ``time.perf_counter``.
        """
        recipe = dataclasses.replace(self.recipe, deadline=deadline)
        return dataclasses.replace(self, recipe=recipe)

    @property
    def score_name(self) -> str:
        """What `score` returns."""
        return self.data.error_name

    def log_likelihood(self, value: float) -> float:
        """Return a mean log likelihood in the unit of the target.

        Args:
            value: Mean log likelihood of the encoded targets, in nats.
        """
        return value if self.data.scale is None else value - math.log(self.data.scale)


def make_task(
    name: str,
    *,
    root: str | Path | None = None,
    num_data: int | None = None,
    num_parameters: int | None = None,
    progress: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Task:
    """Return a task.

    Args:
        name: One of `TASKS`.
        root: Folder of the images; by default the environment variable ``PYRO_RELEVANCE_DATA``.
        num_data: Training examples, at most (of image tasks).
        num_parameters: Another limit on parameters than that of the task; the small network is the
            widest one within it.
        progress: Whether trainings show a progress bar.
        seed: Seed of the split into training and test rows, where the task has none of its own.
        device: Where the data lie and networks are made.

    Raises:
        ValueError: If the name is unknown, or the task does not allow another limit.
    """
    if name not in TASKS:
        raise ValueError(f"Expected a task out of {list(TASKS)}, but got {name!r}.")
    if num_parameters is not None and name not in ("boston", "mnist"):
        raise ValueError(
            f"Expected a limit on parameters for 'boston' or 'mnist', but got one for {name!r}, "
            "whose limits are shares of its network."
        )
    if name == "boston":
        task = _boston(seed, 200 if num_parameters is None else num_parameters, device)
    elif name == "mnist":
        limit = 20_000 if num_parameters is None else num_parameters
        task = _mnist(root, num_data, limit, device)
    else:
        task = _cifar10(name, root, num_data, device)
    if num_parameters is not None and task.make_network is not None:
        dense = count_parameters(seeded_network(task.make_network, seed))
        if num_parameters >= dense:
            raise ValueError(
                f"Expected a limit below the {dense} parameters of the network that is pruned, "
                f"but got {num_parameters}."
            )
    likelihood = likelihoods.moved(task.recipe.likelihood, device)
    recipe = dataclasses.replace(task.recipe, likelihood=likelihood, progress=progress)
    return dataclasses.replace(task, recipe=recipe)


def _widest(num_inputs: int, depth: int, num_outputs: int, num_parameters: int) -> list[int]:
    """Return as many hidden units in each of ``depth`` layers as a number of parameters allows.

    Raises:
        ValueError: If it does not allow one.
    """

    def size(width: int) -> int:
        sizes = [num_inputs, *[width] * depth, num_outputs]
        return sum((a + 1) * b for a, b in itertools.pairwise(sizes))

    if size(1) > num_parameters:
        raise ValueError(
            f"Expected a limit of at least {size(1)} parameters, one unit in each hidden layer, "
            f"but got {num_parameters}."
        )
    return [next(w for w in itertools.count(1) if size(w + 1) > num_parameters)] * depth


def _boston(seed: int, num_parameters: int, device: str) -> Task:
    data = table_data(datasets.boston(), seed=seed).to(device)
    data = dataclasses.replace(data, name="boston")
    num_inputs = data.train[0].shape[1]
    hidden = _widest(num_inputs, 1, 1, num_parameters)
    return Task(
        name="boston",
        data=data,
        # A noise scale that is learned with the weights does not hold for new rows: it is tiny
        # where the network fits the training rows closely.
        recipe=Recipe(
            likelihoods.Gaussian(0.25, learn_noise=False), batch_size=100, learning_rate=5e-3
        ),
        make_space=make_space("mlp", data),
        make_network=lambda: networks.MLP(num_inputs, [50], 1).to(device),
        make_small_network=lambda: networks.MLP(num_inputs, hidden, 1).to(device),
        num_parameters=num_parameters,
        units=("input", "unit"),
        unit_prior=DescriptionLengthPrior(0.5),
        weight_log_odds=-1.5,
        granularity=("weight",),
    )


@functools.lru_cache(maxsize=1)
def _images(name: str, root: Path, num_data: int | None, device: str) -> SearchData:
    """Read a data set once for all runs of a process."""
    return image_data(name, root, num_data=num_data).to(device)


def _mnist(root: str | Path | None, num_data: int | None, num_parameters: int, device: str) -> Task:
    hidden = _widest(784, 2, 10, num_parameters)
    return Task(
        name="mnist",
        data=_images("mnist", data_root(root, "MNIST"), num_data, device),
        recipe=Recipe(
            likelihoods.Categorical(),
            learning_rate=2e-3,
            weight_scale=0.3,
            augment=RandomCrop(1, -MNIST_MEAN[0] / MNIST_SD[0]),
        ),
        # The widths of LeNet-5, not those of LeNet-5-Caffe: a mixture costs several convolutions.
        make_space=lambda full: spaces.lenet_space(channels=(6, 16), hidden=84).to(device),
        make_network=lambda: networks.LeNet300100().to(device),
        make_small_network=lambda: nn.Sequential(nn.Flatten(), networks.MLP(784, hidden, 10)).to(
            device
        ),
        num_parameters=num_parameters,
        units=("input", "unit"),
        unit_prior=DescriptionLengthPrior(0.1),
        weight_log_odds=-3.0,
        input_unit=0.1 / MNIST_SD[0],
    )


def _cifar10(name: str, root: str | Path | None, num_data: int | None, device: str) -> Task:
    data = _images("cifar10", data_root(root, "CIFAR-10"), num_data, device)
    recipe = Recipe(
        likelihoods.Categorical(),
        weight_scale=0.3,
        augment=InOrder((RandomCrop(4), RandomFlip())),
        precision=Precision(autocast=torch.bfloat16, channels_last=True),
    )
    task = Task(
        name=name,
        data=data,
        recipe=recipe,
        make_space=make_space("nasbench201" if name == "nasbench201" else "darts", data),
        cells_of_two_edges=name == "cifar10",
        shared=True,
        # Adversarial changes of images are measured in 256ths. A tenth of the range is too much.
        input_unit=8 / 255 / CIFAR10_SD[0],
    )
    if name == "nasbench201":
        return task
    network = networks.ResNet20().to(device)
    return dataclasses.replace(
        task,
        make_network=lambda: networks.ResNet20().to(device),
        make_small_network=lambda: networks.CifarResNet(1).to(device),
        num_parameters=count_parameters(network) // 2,
        num_macs=num_macs(network, data.train[0][:1]) // 2,
        unit_prior=DescriptionLengthPrior(0.05),
        weight_log_odds=-1.0,
    )
