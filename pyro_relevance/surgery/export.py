"""A network as a file for other software: ``torch.export`` (``.pt2``) and ONNX.

Neither file needs this library, Pyro, or the code of the network. Each is read back and compared
with the network before it is kept. The receipt has their largest difference and both times.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_relevance._files import replacing
from pyro_relevance.edges.exported import export_any_batch, quiet, traceable_copy
from pyro_relevance.edges.modules import example_arguments, first_line
from pyro_relevance.edges.size import Latency, latency, num_macs
from pyro_relevance.errors import CheckpointError
from pyro_relevance.surgery.equivalence import (
    LOW_PRECISION_TOLERANCE,
    TOLERANCES,
    relative_difference,
)
from pyro_relevance.surgery.pruned_network import PrunedNetwork
from pyro_relevance.surgery.receipt import milliseconds

__all__ = ["ExportReceipt", "export_onnx", "export_torch"]

# The runtime has its own kernels, which sum in another order.
_ONNX_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class ExportReceipt:
    """Measurements of an exported file, on the CPU.

    Args:
        format: ``"pt2"`` or ``"onnx"``.
        path: The file.
        num_bytes: Its size on disk.
        num_macs: Multiply-accumulates for one example, as counted on the network.
        latency_before: Time of one call of the network in Python.
        latency_after: Time of one call of the file that was read back.
        batch_size: Examples in a timed call.
        compared_batch_sizes: Batch sizes at which the outputs were compared.
        dtype: Data type of the network.
        max_difference: Largest max|a - b| / max(1, max|a|) between outputs of the network (a) and
            of the file (b).
        tolerance: Largest accepted difference.
    """

    format: str
    path: str
    num_bytes: int
    num_macs: int
    latency_before: Latency
    latency_after: Latency
    batch_size: int
    compared_batch_sizes: tuple[int, ...]
    dtype: str
    max_difference: float
    tolerance: float

    @property
    def speedup(self) -> float:
        """Median latency before divided by median latency after."""
        return self.latency_before.median / self.latency_after.median

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return asdict(self)

    def __str__(self) -> str:
        before, after = milliseconds(self.latency_before), milliseconds(self.latency_after)
        sizes = ", ".join(map(str, self.compared_batch_sizes))
        return "\n".join(
            [
                f"{self.path}: {self.num_bytes:,} bytes, {self.num_macs:,} MACs per example",
                f"ms per pass of {self.batch_size:,}: {before} in Python, {after} from the file "
                f"({self.speedup:.1f}x)",
                f"max |network - file| = {self.max_difference:.1e} (relative, {self.dtype}; at "
                f"most {self.tolerance:g}) on batches of {sizes}",
            ]
        )


def export_torch(
    network: PrunedNetwork | nn.Module,
    path: str | os.PathLike[str],
    *,
    example_input: Tensor | tuple[Tensor, ...],
) -> ExportReceipt:
    """Write a network in evaluation mode to a ``.pt2`` file that needs torch alone.

    Read it with ``torch.export.load(path).module()``: a module for inputs of any batch size, on
    the CPU, that cannot be put into training mode. The file is a zip archive of JSON and of the
    raw bytes of the tensors. ``torch.export.load`` unpickles an example input and tensors of
    special classes where an archive holds them; this function writes neither and checks the
    archive for them, so that reading *this* file unpickles nothing. With a file of unknown origin
    ``torch.export.load`` may unpickle its content; :func:`load_pruned` never does.

    Args:
        network: A pruned network, or any network that ``torch.export`` can follow. It is not
            changed.
        path: File to write, ``*.pt2``. An old file is kept until the new one is whole and checked.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs with the same
            ``num_data``: for the comparison, and the batch at which latency is measured.

    Returns:
        The measurements of the file.

    Raises:
        ValueError: The path or the example is not of this kind, the network cannot be exported, or
            it fixes its batch size.
        FileNotFoundError: There is no such folder.
        CheckpointError: The file does not compute what the network computes, or needs pickle.
    """
    _check_suffix(path, ".pt2")
    plain, arguments = _on_cpu(network, example_input)
    program, _ = _exported(plain, arguments)
    program.example_inputs = None  # the user's data, and the only part that would be pickled

    def write(temporary: Path) -> Callable[..., Any]:
        archive = io.BytesIO()  # given a name, torch would write the temporary one into the file
        with quiet():
            torch.export.save(program, archive)
        temporary.write_bytes(archive.getbuffer())
        _check_unpickled(temporary)
        with quiet():
            return torch.export.load(temporary).module()

    return _checked(plain, arguments, path, write, TOLERANCES)


def export_onnx(
    network: PrunedNetwork | nn.Module,
    path: str | os.PathLike[str],
    *,
    example_input: Tensor | tuple[Tensor, ...],
) -> ExportReceipt:
    """Write a network in evaluation mode to an ONNX file, checked with onnxruntime on the CPU.

    Args:
        network: A pruned network, or any network that ``torch.export`` can follow. It is not
            changed.
        path: File to write, ``*.onnx``. An old file is kept until the new one is whole and checked.
        example_input: ``(num_data, *input_shape)`` input, or a tuple of inputs with the same
            ``num_data``: for the comparison, and the batch at which latency is measured.

    Returns:
        The measurements of the file.

    Raises:
        ImportError: A package of the extra ``onnx`` is missing.
        ValueError: The path or the example is not of this kind, the network cannot be exported, or
            it fixes its batch size.
        FileNotFoundError: There is no such folder.
        CheckpointError: The file does not compute what the network computes.
    """
    _check_suffix(path, ".onnx")
    _check_packages()
    plain, arguments = _on_cpu(network, example_input)
    program, shapes = _exported(plain, arguments)

    def write(temporary: Path) -> Callable[..., Any]:
        try:
            with quiet():
                converted = torch.onnx.export(
                    program, dynamo=True, verbose=False, dynamic_shapes=shapes
                )
                assert converted is not None
                converted.save(temporary, external_data=False)  # one file, which can be renamed
                return _session(temporary)
        except Exception as error:
            raise ValueError(
                f"Expected a network of operations that ONNX and onnxruntime have, but got "
                f"{type(plain).__name__}, where this failed: {first_line(error)} Use float32, or "
                "export_torch."
            ) from error

    return _checked(plain, arguments, path, write, _ONNX_TOLERANCES)


def _check_suffix(path: str | os.PathLike[str], suffix: str) -> None:
    if Path(path).suffix != suffix:
        raise ValueError(
            f"Expected a path that ends in {suffix!r}, but got {os.fspath(path)!r}. Rename it."
        )


def _check_packages() -> None:
    for name in _ONNX_PACKAGES:
        try:
            with quiet():
                importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"Expected the packages {', '.join(_ONNX_PACKAGES)}, but {name!r} cannot be "
                f"imported: {error}. Install them with: pip install 'pyro-relevance[onnx]'"
            ) from error


def _on_cpu(
    network: nn.Module, example_input: Tensor | tuple[Tensor, ...]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A copy in evaluation mode and its inputs on the CPU, so that the file suits every machine."""
    given = example_arguments(example_input)
    lengths = {len(argument) if argument.ndim else 0 for argument in given}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "Expected an example_input with at least one example and as many in every input, but "
            f"got shapes {', '.join(str(tuple(argument.shape)) for argument in given)}. The first "
            "axis counts examples."
        )
    inner = network.network if isinstance(network, PrunedNetwork) else network
    return traceable_copy(inner).cpu(), tuple(argument.detach().cpu() for argument in given)


def _exported(
    network: nn.Module, arguments: tuple[Tensor, ...]
) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    """The program for any batch size, and the sizes of its inputs with their names."""
    try:
        with torch.enable_grad():
            program, shapes = export_any_batch(network, arguments)
    except Exception as error:
        if _exports_at_one_size(network, arguments):
            raise ValueError(
                "Expected a network for any batch size, but got one that fixes it: "
                f"{first_line(error)} Take the size from the input in forward(), as in "
                "x.flatten(1) or x.reshape(x.shape[0], -1)."
            ) from error
        raise ValueError(
            f"Expected a network that torch.export can follow, but got {type(network).__name__}, "
            f"where it failed: {first_line(error)} Avoid control flow that depends on values in "
            "forward(), and see that the example_input is one that the network accepts."
        ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # lines and folders of the user's source
    return program, shapes


def _exports_at_one_size(network: nn.Module, arguments: tuple[Tensor, ...]) -> bool:
    try:
        with quiet(), torch.enable_grad():
            torch.export.export(network, arguments, strict=False)
    except Exception:  # whatever it is, the batch size is not to blame
        return False
    return True


def _check_unpickled(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        # Objects as torch.save writes them; the example input is replaced by an empty one.
        found = [
            entry.filename
            for entry in archive.infolist()
            if entry.filename.endswith(".pt") and entry.file_size
        ]
        for name in archive.namelist():
            if name.endswith("_config.json"):
                entries = json.loads(archive.read(name)).get("config", {})
                found += [key for key, entry in entries.items() if entry.get("use_pickle")]
    if found:
        raise CheckpointError(
            f"Expected an archive without pickled parts, but got {', '.join(found)}. Make all "
            "parameters, buffers and constants plain tensors; early releases of torch pickle "
            "those too."
        )


class _Loaded(nn.Module):
    """A file that was read back, as a module that can be timed."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self._runs = (run,)

    def forward(self, *inputs: Tensor) -> Any:
        return self._runs[0](*inputs)


def _session(path: Path) -> Callable[..., Any]:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


def _checked(
    network: nn.Module,
    arguments: tuple[Tensor, ...],
    path: str | os.PathLike[str],
    write: Callable[[Path], Callable[..., Any]],
    tolerances: dict[torch.dtype, float],
) -> ExportReceipt:
    """Write to a temporary name, run and compare the file, and only then rename it."""
    dtype = _dtype(network, arguments)
    tolerance = tolerances.get(dtype, LOW_PRECISION_TOLERANCE)
    size = len(arguments[0])
    trials = [arguments, tuple(a[:1] if size > 1 else torch.cat((a, a, a)) for a in arguments)]
    with replacing(path) as temporary:
        loaded = _Loaded(write(temporary))
        with torch.no_grad():
            difference = max(_difference(network(*trial), loaded(*trial)) for trial in trials)
        if not difference <= tolerance:
            raise CheckpointError(
                f"Expected a file that computes what the network computes to {tolerance:g} in "
                f"{dtype}, but they differ by {difference:.2e}. "
                + (
                    "Use float32, or export_torch."
                    if Path(path).suffix == ".onnx"
                    else "Look for random numbers or state that changes in forward()."
                )
            )
        receipt = ExportReceipt(
            format=Path(path).suffix.removeprefix("."),
            path=os.fspath(path),
            num_bytes=temporary.stat().st_size,
            num_macs=num_macs(network, arguments),
            latency_before=latency(network, arguments),
            latency_after=latency(loaded, arguments),
            batch_size=size,
            compared_batch_sizes=tuple(len(trial[0]) for trial in trials),
            dtype=str(dtype).removeprefix("torch."),
            max_difference=difference,
            tolerance=tolerance,
        )
    return receipt


def _dtype(network: nn.Module, arguments: tuple[Tensor, ...]) -> torch.dtype:
    for tensor in (*network.parameters(), *network.buffers(), *arguments):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()


def _difference(expected: Any, found: Any) -> float:
    """Largest relative difference over all outputs of a call."""
    pairs = (tree_leaves(expected), tree_leaves(found))
    if len(pairs[0]) != len(pairs[1]):
        return float("inf")
    return max(map(relative_difference, *pairs), default=0.0)
