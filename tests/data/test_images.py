"""Images: files written by the tests, the cache, the split, and every refusal."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_relevance import images
from pyro_relevance._files import read_tensors
from pyro_relevance.data.images import cifar10, image_folder, mnist, standardise
from pyro_relevance.errors import DataError
from tests.image_files import write_mnist_part

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _write_folder(folder: Path, *, size: int = 32, classes=CLASSES, per_class: int = 2):
    """Write random images; return them by class, ``(class, per_class, size, size, 3)``."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(classes), per_class, size, size, 3), dtype=np.uint8)
    for name, of_class in zip(classes, pixels, strict=True):
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(of_class):
            Image.fromarray(image).save(folder / name / f"{index}.png")
    return pixels


@pytest.fixture
def mnist_root(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    write_mnist_part(tmp_path, "train", pixels, [3, 0, 9])
    write_mnist_part(tmp_path, "t10k", pixels[:2], [1, 2])
    return tmp_path, pixels


@pytest.mark.exact
def test_mnist_reads_its_files(mnist_root, monkeypatch):
    root, pixels = mnist_root
    x, y = mnist(root, raw=True)
    assert x.dtype == torch.uint8
    assert torch.equal(x, torch.from_numpy(pixels).unsqueeze(1))
    assert y.dtype == torch.int64
    assert y.tolist() == [3, 0, 9]
    monkeypatch.setenv("PYRO_RELEVANCE_DATA", str(root))
    x, y = mnist(train=False)
    expected = (torch.from_numpy(pixels[:2]).float().unsqueeze(1) / 255 - 0.1307) / 0.3081
    assert x.dtype == torch.float32
    assert torch.allclose(x, expected, atol=1e-6)
    assert y.tolist() == [1, 2]


@pytest.mark.contract
def test_mnist_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("PYRO_RELEVANCE_DATA", raising=False)
    with pytest.raises(DataError, match="Expected a data root for MNIST, but got none. Pass root="):
        mnist()
    with pytest.raises(DataError, match=r"four files of MNIST in .*raw, but got: Dataset not foun"):
        mnist(tmp_path)


@pytest.mark.contract
def test_damaged_mnist(mnist_root):
    root, _ = mnist_root
    path = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="Expected the four files of MNIST .* or pass download"):
        mnist(root)


@pytest.mark.exact
def test_cifar10_from_a_folder_is_decoded_once(tmp_path, monkeypatch):
    pixels = _write_folder(tmp_path / "cifar10" / "train")
    expected = torch.from_numpy(pixels).flatten(0, 1).permute(0, 3, 1, 2)
    x, y = cifar10(tmp_path, raw=True)
    assert torch.equal(x, expected)
    assert y.tolist() == [label for label in range(10) for _ in range(2)]
    assert os.listdir(tmp_path / "cache") == ["cifar10-train.safetensors"]

    def fail(found):
        raise AssertionError("decoded again")

    monkeypatch.setattr(images, "_decoded", fail)
    again, labels = cifar10(tmp_path)
    mean = torch.tensor(images.CIFAR10_MEAN).view(3, 1, 1)
    sd = torch.tensor(images.CIFAR10_SD).view(3, 1, 1)
    assert torch.allclose(again, (expected.float() / 255 - mean) / sd, atol=1e-6)
    assert torch.equal(labels, y)


@pytest.mark.exact
def test_the_cache_follows_the_files(tmp_path):
    folder, cache = tmp_path / "images", tmp_path / "deep" / "cache.safetensors"
    pixels = _write_folder(folder, size=5, classes=("b", "a"), per_class=1)
    x, y, names = image_folder(folder, cache=cache)
    assert names == ("a", "b")
    assert torch.equal(x[1], torch.from_numpy(pixels[0, 0]).permute(2, 0, 1))
    assert read_tensors(cache)[1]["classes"] == ["a", "b"]
    Image.fromarray(pixels[0, 0]).save(folder / "a" / "another.png")
    x, y, _ = image_folder(folder, cache=cache)
    assert y.tolist() == [0, 0, 1]
    cache.write_bytes(b"damaged")
    assert torch.equal(image_folder(folder, cache=cache)[0], x)
    assert torch.equal(read_tensors(cache)[0]["x"], x)
    assert torch.equal(image_folder(folder)[0], x)


@pytest.mark.contract
def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path):
    _write_folder(tmp_path / "images", size=5, classes=("a",))
    (tmp_path / "file").write_text("no folder")
    x, _, _ = image_folder(tmp_path / "images", cache=tmp_path / "file" / "cache.safetensors")
    assert x.shape == (2, 3, 5, 5)


@pytest.mark.exact
def test_cifar10_from_torchvision(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)

    def fake(root, train, download):
        assert (root, train, download) == (str(tmp_path), False, True)
        return SimpleNamespace(data=data, targets=[1, 2, 3, 4])

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fake)
    x, y = cifar10(tmp_path, train=False, raw=True, download=True)
    assert torch.equal(x, torch.from_numpy(data).permute(0, 3, 1, 2))
    assert y.tolist() == [1, 2, 3, 4]


@pytest.mark.contract
def test_cifar10_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("PYRO_RELEVANCE_DATA", raising=False)
    with pytest.raises(DataError, match="Expected a data root for CIFAR-10, but got none"):
        cifar10()
    with pytest.raises(
        DataError, match=r"Expected CIFAR-10 in .*cifar-10-batches-py or as images in .*/<class>"
    ):
        cifar10(tmp_path)
    _write_folder(tmp_path / "cifar10" / "train", size=8)
    with pytest.raises(DataError, match="of 3 x 32 x 32 in 10 classes .* but got 3 x 8 x 8 in 10"):
        cifar10(tmp_path)


@pytest.mark.contract
def test_folders_that_are_refused(tmp_path):
    with pytest.raises(DataError, match="Expected images in .*none/<class>, but got"):
        image_folder(tmp_path / "none")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="Expected images in .*empty/<class>, but got: Found no va"):
        image_folder(tmp_path / "empty")
    folder = tmp_path / "images"
    _write_folder(folder, size=5, classes=("a",))
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "a" / "z.png")
    with pytest.raises(DataError, match=r"one size, \(3, 5, 5\) .*z.png has \(3, 4, 5\)"):
        image_folder(folder)
    (folder / "a" / "z.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Expected an image in .*z.png, but it cannot be read"):
        image_folder(folder)


@pytest.mark.contract
def test_standardise_refuses():
    x = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"uint8 images .* got torch.float32 .* with raw=True"):
        standardise(x.float(), (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match="Expected 3 means and as many positive"):
        standardise(x, (0.0,), (1.0,))
    with pytest.raises(ValueError, match="Expected 3 means and as many positive"):
        standardise(x, (0.0,) * 3, (1.0, 0.0, 1.0))


@pytest.mark.exact
def test_some_images_are_of_all_classes():
    # A folder is sorted by class: the first images would be of one class alone.
    y = torch.arange(10).repeat_interleave(100)
    x = y.float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    few, classes = images.some(x, y, 200)
    assert few.shape == (200, 1, 2, 2)
    assert torch.equal(few[:, 0, 0, 0].long(), classes)
    assert int(classes.bincount(minlength=10).min()) > 5
    again = images.some(x, y, 200)
    assert torch.equal(again[1], classes)
    assert not torch.equal(images.some(x, y, 200, seed=1)[1], classes)
    for number in (None, 1000, 2000):
        assert torch.equal(images.some(x, y, number)[1], y)
    with pytest.raises(ValueError, match="at least one image, but got num_data=0"):
        images.some(x, y, 0)
