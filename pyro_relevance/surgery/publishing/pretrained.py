"""A pruned network in a folder of the layout that Hugging Face has; only local folders are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pyro_relevance._files import (
    digest_of_json,
    json_text,
    parse_json,
    read_safetensors,
    replacing,
    save_safetensors,
)
from pyro_relevance.errors import CheckpointError
from pyro_relevance.surgery.description import describe
from pyro_relevance.surgery.pruned_network import PrunedNetwork, check_finite, network_of
from pyro_relevance.surgery.publishing.model_card import ModelCard

__all__ = ["CARD", "CONFIGURATION", "WEIGHTS", "from_pretrained", "save_pretrained"]

WEIGHTS, CONFIGURATION, CARD = "model.safetensors", "config.json", "README.md"
_KIND, _VERSION = "pyro_relevance_pruned", "1"
_MOST_BYTES = 64 * 2**20
"""Largest configuration that is read."""


def save_pretrained(
    pruned: PrunedNetwork, folder: str | os.PathLike[str], *, card: ModelCard
) -> tuple[Path, ...]:
    """Write a pruned network as a folder: tensors, configuration and model card.

    The tensors are dense and have the names of the network's state, so that any tool that reads
    safetensors shows them. The configuration holds the architecture that :func:`from_pretrained`
    builds again, and the receipt.

    Args:
        pruned: The network.
        folder: The folder; made where it is missing. Files of the three names are replaced.
        card: What the card says beside the sizes.

    Returns:
        The paths of the files.

    Raises:
        ValueError: A parameter is not finite, or the architecture cannot be described, see
            :meth:`PrunedNetwork.save`.
        CheckpointError: A file could not be written.
    """
    check_finite(pruned.network)
    content: dict[str, Any] = {
        "model_type": _KIND,
        "version": _VERSION,
        "architecture": describe(pruned.network),
        "receipt": pruned.receipt.to_dict(),
    }
    configuration = json_text({**content, "digest": digest_of_json(content)})
    target = Path(folder)
    paths = tuple(target / name for name in (WEIGHTS, CONFIGURATION, CARD))
    try:
        target.mkdir(parents=True, exist_ok=True)
        with replacing(paths[0]) as temporary:
            save_safetensors(temporary, pruned.network.state_dict(), {"format": "pt"})
        with replacing(paths[1]) as temporary:
            temporary.write_text(configuration + "\n", encoding="utf-8")
        card.write(pruned, paths[2])
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Expected to write {target}, but it failed: {error}") from error
    return paths


def from_pretrained(folder: str | os.PathLike[str]) -> PrunedNetwork:
    """Read a network from a local folder of :func:`save_pretrained`; no code in it is run.

    Args:
        folder: The folder. A name on a hub is not looked up: download it first.

    Returns:
        The network on the CPU in evaluation mode, with its receipt.

    Raises:
        FileNotFoundError: There is no such folder, or a file in it is missing.
        CheckpointError: A file is damaged, or not one of this library.

    Example:
        >>> import tempfile, torch
        >>> import pyro_relevance as pr
        >>> network = pr.networks.MLP(3, [4], 1)
        >>> edges = pr.find_edges(network)
        >>> mask = pr.Mask({"hidden1.units": torch.tensor([True, True, False, True])})
        >>> small = pr.prune(network, edges, mask, example_input=torch.randn(8, 3))
        >>> card = pr.ModelCard("example", "apache-2.0", "none", {"test error": "not measured"})
        >>> folder = tempfile.mkdtemp()
        >>> names = [path.name for path in pr.save_pretrained(small, folder, card=card)]
        >>> names
        ['model.safetensors', 'config.json', 'README.md']
        >>> pr.from_pretrained(folder)(torch.zeros(2, 3)).shape
        torch.Size([2, 1])
    """
    target = Path(folder)
    for name in (WEIGHTS, CONFIGURATION):
        if not (target / name).is_file():
            raise FileNotFoundError(
                f"Expected a folder with {WEIGHTS} and {CONFIGURATION}, but {str(target)!r} has no "
                f"{name}. Only local folders are read: download the files first."
            )
    try:
        content = _configuration(target / CONFIGURATION)
        tensors, _ = read_safetensors(target / WEIGHTS)
        texts = {name: json_text(content[name]) for name in ("architecture", "receipt")}
        network, receipt = network_of(tensors, {**texts, "packed": "{}"})
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"Expected a folder written by save_pretrained, but {str(target)!r} is damaged or of "
            f"another kind: {error}"
        ) from error
    network.requires_grad_(True)
    return PrunedNetwork(network.eval(), receipt).eval()


def _configuration(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"its configuration has {size:,} bytes, more than {_MOST_BYTES:,}")
    content = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("model_type") != _KIND:
        raise ValueError(f"its configuration is not one of model_type {_KIND!r}")
    if content.get("version") != _VERSION:
        raise ValueError(f"its configuration has version {content.get('version')!r}")
    digest = content.pop("digest", None)
    if digest != digest_of_json(content):
        raise ValueError("its configuration does not fit its digest")
    return content
