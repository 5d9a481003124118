"""Images of the experiments: training images and evaluation images do not overlap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from analysis.image_split import ImageSplit, percent_wrong
from pyro_relevance.data.images import mnist
from tests.image_files import write_mnist


@pytest.mark.exact
def test_percent_wrong_counts_images_in_all_batches() -> None:
    torch.manual_seed(0)
    network, x, y = nn.Linear(3, 4), torch.randn(1203, 3), torch.randint(4, (1203,))
    images = ImageSplit(x[:1], y[:1], x, y, "validation")
    with torch.no_grad():
        wrong = sum(int(network(x[i]).argmax()) != int(y[i]) for i in range(len(x)))
    error = images.error(network.train())
    assert error == {"validation_error": pytest.approx(100 * wrong / 1203, rel=1e-6)}
    assert not network.training
    assert percent_wrong(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 25.0


@pytest.mark.contract
def test_validation_images_are_carved_from_the_training_images(tmp_path: Path) -> None:
    write_mnist(tmp_path, num_train=60, num_test=20)
    root = str(tmp_path)
    tested = ImageSplit.load(mnist, root, num_data=50)
    assert (len(tested.x), len(tested.x_eval), tested.part) == (50, 20, "test")
    for path in (tmp_path / "MNIST" / "raw").glob("t10k*"):
        path.write_bytes(b"")  # with validation images, test images are not read
    split = ImageSplit.load(mnist, root, num_data=100, num_validation=15, validate=True)
    assert (len(split.x), len(split.x_eval), split.part) == (45, 15, "validation")
    everything = torch.cat([split.x, split.x_eval]).flatten(1)
    assert len(everything.unique(dim=0)) == 60
