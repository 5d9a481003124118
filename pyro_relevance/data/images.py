"""Images of the experiments as tensors: MNIST, CIFAR-10, and any folder of images by class.

Pixels are decoded once and kept in one tensor file, so that the data of a run are two tensors on
the device and no worker has to load anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_relevance._files import read_tensors, write_tensors
from pyro_relevance.data.root import data_root
from pyro_relevance.errors import CheckpointError, DataError

__all__ = ["cifar10", "image_folder", "mnist", "some", "standardise"]

MNIST_MEAN, MNIST_SD = (0.1307,), (0.3081,)
CIFAR10_MEAN, CIFAR10_SD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Per channel, of the training pixels on the scale 0 to 1."""


def mnist(
    root: str | Path | None = None,
    *,
    train: bool = True,
    raw: bool = False,
    download: bool = False,
) -> tuple[Tensor, Tensor]:
    """Handwritten digits: 60,000 training or 10,000 test images of 28 x 28 pixels, 10 classes.

    Args:
        root: Folder that holds ``MNIST/raw``; by default the environment variable
            ``PYRO_RELEVANCE_DATA``.
        train: Training images, else test images.
        raw: Return bytes, uint8 from 0 to 255, instead of standardised float32.
        download: Let torchvision download the files where they are absent.

    Returns:
        ``x`` of shape ``(num_data, 1, 28, 28)`` and int64 ``y`` of shape ``(num_data,)``, in the
        order of the files.

    Raises:
        DataError: If there is no root, or the files are absent or damaged.

    References:
        LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition,
        Proc. IEEE 1998.
    """
    from torchvision import datasets

    folder = data_root(root, "MNIST")
    try:
        found = datasets.MNIST(str(folder), train=train, download=download)
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"Expected the four files of MNIST in {folder / 'MNIST' / 'raw'}, but got: {error}. "
            "Put them there, or pass download=True on a machine with a network."
        ) from error
    x, y = found.data.unsqueeze(1), found.targets.long()
    return (x if raw else standardise(x, MNIST_MEAN, MNIST_SD)), y


def cifar10(
    root: str | Path | None = None,
    *,
    train: bool = True,
    raw: bool = False,
    download: bool = False,
) -> tuple[Tensor, Tensor]:
    """Small colour photographs: 50,000 training or 10,000 test images of 32 x 32, 10 classes.

    They are read from torchvision's own files (``cifar-10-batches-py``) or, where there is one,
    from a folder ``cifar10/{train,test}/<class>/*.png``. The two hold the same images in another
    order; classes are numbered by the alphabet in both.

    Args:
        root: Folder that holds either; by default the environment variable
            ``PYRO_RELEVANCE_DATA``. The tensor file ``cache/cifar10-<part>.safetensors`` is written
            there.
        train: Training images, else test images.
        raw: Return bytes, uint8 from 0 to 255, instead of standardised float32.
        download: Let torchvision download the files where they are absent.

    Returns:
        ``x`` of shape ``(num_data, 3, 32, 32)`` and int64 ``y`` of shape ``(num_data,)``.

    Raises:
        DataError: If there is no root, or the images are absent, damaged or of another size.

    References:
        Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    from torchvision import datasets

    folder = data_root(root, "CIFAR-10")
    part = "train" if train else "test"
    images = folder / "cifar10" / part
    if images.is_dir():
        x, y, classes = image_folder(images, cache=folder / "cache" / f"cifar10-{part}.safetensors")
        if x.shape[1:] != (3, 32, 32) or len(classes) != 10:
            raise DataError(
                f"Expected images of 3 x 32 x 32 in 10 classes in {images}, but got "
                f"{' x '.join(map(str, x.shape[1:]))} in {len(classes)}. Put CIFAR-10 there, or "
                "use image_folder for other images."
            )
    else:
        try:
            found = datasets.CIFAR10(str(folder), train=train, download=download)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(
                f"Expected CIFAR-10 in {folder / 'cifar-10-batches-py'} or as images in "
                f"{images}/<class>, but got: {error}. Put it there, or pass download=True on a "
                "machine with a network."
            ) from error
        x = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        y = torch.tensor(found.targets, dtype=torch.long)
    return (x if raw else standardise(x, CIFAR10_MEAN, CIFAR10_SD)), y


def image_folder(
    folder: str | Path, *, cache: str | Path | None = None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """All images of a folder ``<class>/<file>``, which must have one size.

    Args:
        folder: The folder; classes are its subfolders, numbered by the alphabet.
        cache: Tensor file (``.safetensors``) that keeps the decoded images. It is made where it is
            absent, damaged or of other files (names and sizes are compared), and its folder too;
            where it cannot be written the images are decoded again next time. ``None`` for no file.

    Returns:
        uint8 ``x`` of shape ``(num_data, num_channels, height, width)``, int64 ``y`` of shape
        ``(num_data,)``, and the names of the classes.

    Raises:
        DataError: If there is no image, one cannot be read, or they differ in size.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    folder = Path(folder)
    try:
        found: Any = ImageFolder(str(folder), transform=pil_to_tensor)
    except OSError as error:
        raise DataError(
            f"Expected images in {folder}/<class>, but got: {error}. Give each class a folder of "
            "images."
        ) from error
    names = tuple(found.classes)
    listing = _listing(folder, [path for path, _ in found.samples])
    if cache is not None:
        with contextlib.suppress(CheckpointError):
            tensors, description = read_tensors(Path(cache))
            if description.get("listing") == listing and {"x", "y"} <= tensors.keys():
                return tensors["x"], tensors["y"], names
    x = _decoded(found)
    y = torch.tensor(found.targets, dtype=torch.long)
    if cache is not None:
        with contextlib.suppress(OSError):  # a root that cannot be written only costs time
            Path(cache).parent.mkdir(parents=True, exist_ok=True)
            write_tensors(Path(cache), {"x": x, "y": y}, {"listing": listing, "classes": names})
    return x, y, names


def standardise(x: Tensor, mean: tuple[float, ...], sd: tuple[float, ...]) -> Tensor:
    """Pixels as float32 on the scale 0 to 1, less the mean, by the standard deviation.

    Args:
        x: uint8 ``(num_data, num_channels, height, width)``.
        mean: One number per channel, on the scale 0 to 1.
        sd: One positive number per channel, on the same scale.

    Returns:
        float32 of the shape of ``x``.

    Raises:
        ValueError: If ``x`` is not of bytes, or there is not one positive number per channel.
    """
    if x.dtype is not torch.uint8 or x.ndim != 4:
        raise ValueError(
            "Expected uint8 images of shape (num_data, num_channels, height, width), but got "
            f"{x.dtype} of shape {tuple(x.shape)}. Load them with raw=True."
        )
    if not len(mean) == len(sd) == x.shape[1] or min(sd) <= 0:
        raise ValueError(
            f"Expected {x.shape[1]} means and as many positive standard deviations, but got {mean} "
            f"and {sd}. Give one number per channel."
        )
    centre, scale = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, sd))
    return x.to(torch.float32).div_(255).sub_(centre).div_(scale)


def some(x: Tensor, y: Tensor, num_data: int | None, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return a random choice of images, since those of a folder are sorted by class.

    Args:
        x: ``(num_images, ...)`` images.
        y: ``(num_images,)`` classes.
        num_data: How many, at most; all of them, in their order, where there are no more or for
            ``None``.
        seed: Seed of the choice.

    Raises:
        ValueError: If ``num_data`` is not positive.
    """
    if num_data is not None and num_data < 1:
        raise ValueError(f"Expected at least one image, but got num_data={num_data}.")
    if num_data is None or num_data >= len(x):
        return x, y
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:num_data]
    return x[rows], y[rows]


def _listing(folder: Path, paths: list[str]) -> str:
    """Return a digest of names and sizes, by which a cache knows the files that it was made of."""
    digest = hashlib.sha256()
    for path in paths:
        name = Path(path).relative_to(folder).as_posix()
        digest.update(f"{name} {os.path.getsize(path)}\n".encode())
    return digest.hexdigest()


def _decoded(found: Any) -> Tensor:
    """Return all images as one tensor; they are written into it one by one, to hold them once."""
    images: Tensor | None = None
    for index, (path, _) in enumerate(found.samples):
        try:
            image = found[index][0]
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"Expected an image in {path}, but it cannot be read: {error}. Replace or delete "
                "the file."
            ) from error
        if images is None:
            images = image.new_empty((len(found.samples), *image.shape))
        if image.shape != images.shape[1:]:
            raise DataError(
                f"Expected images of one size, {tuple(images.shape[1:])} as the first one, but "
                f"{path} has {tuple(image.shape)}. Resize them first."
            )
        images[index] = image
    if images is None:
        raise DataError("Expected at least one image, but there is none. Check the folder.")
    return images
