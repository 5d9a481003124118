"""Exact pruning of public networks: timm's modules and families of transformers, random weights.

One network of each module of timm (a small one, by its name) and tiny configurations of families of
Hugging Face: random weights, a random mask, pruned against masked on fresh inputs of the example's
size and of another one, saved and read back. Nothing is downloaded. Each network runs in a process
of its own with a limit of time and is kept when it is measured; a killed run goes on with the next.
Delete the folder of the parts to measure another version of the library.

    pip install 'pyro-relevance[zoo]'
    python -m analysis.bench_zoo
    python -m analysis.bench_zoo --only timm/resnet hf/gpt2 --limit 300
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from analysis.bench_torchvision import candidate_share
from analysis.command import Command
from analysis.parts import Parts
from analysis.records import runs_row, write_record
from pyro_relevance.edges.find import find_edges
from pyro_relevance.edges.size import masked_cost
from pyro_relevance.errors import EdgeError
from pyro_relevance.surgery.pruning import apply_mask, load_pruned, prune
from pyro_relevance.surgery.steps import GraphNetwork, plain_containers

DENSITY = 0.6
TOLERANCE = 1e-5
IMAGE_SIZES = (96, 128, 224, 256)
_SMALL_FIRST = """
    test_ _atto _femto _pico _zepto _nano xxt xx_small _xxs _xxt micro _tiny tiny_ _050 _b0 _s0 _a0
    _t0 _mo _xs 14 18 _s
"""
_TOKENS = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT = {**_TOKENS, "intermediate_size": 48, "max_position_embeddings": 64}
_IMAGE = {
    **{"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "intermediate_size": 48},
}
_GROUPED = {**_TEXT, "num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", _TEXT),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", _TEXT),
    "electra": ("ElectraConfig", "ElectraForSequenceClassification", _TEXT),
    "albert": ("AlbertConfig", "AlbertForSequenceClassification", {**_TEXT, "embedding_size": 16}),
    "distilbert": (
        *("DistilBertConfig", "DistilBertForSequenceClassification"),
        {"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "gpt2": (
        *("GPT2Config", "GPT2LMHeadModel"),
        {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    ),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**_TEXT, "use_cache": False}),
    "opt": (
        *("OPTConfig", "OPTForCausalLM"),
        {**_TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32, "use_cache": False},
    ),
    "bloom": (
        *("BloomConfig", "BloomForCausalLM"),
        {"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _GROUPED),
    "mistral": ("MistralConfig", "MistralForCausalLM", _GROUPED),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _GROUPED),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**_GROUPED, "head_dim": 8}),
    "phi": ("PhiConfig", "PhiForCausalLM", {**_GROUPED, "num_key_value_heads": 4}),
    "t5_encoder": (
        *("T5Config", "T5EncoderModel"),
        {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "vit": ("ViTConfig", "ViTForImageClassification", _IMAGE),
    "deit": ("DeiTConfig", "DeiTForImageClassification", _IMAGE),
    "dinov2": ("Dinov2Config", "Dinov2ForImageClassification", {**_IMAGE, "mlp_ratio": 2}),
    "beit": ("BeitConfig", "BeitForImageClassification", _IMAGE),
    "swin": (
        *("SwinConfig", "SwinForImageClassification"),
        {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4]}
        | {"window_size": 4},
    ),
    "convnext": (
        *("ConvNextConfig", "ConvNextForImageClassification"),
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    ),
    "resnet": (
        *("ResNetConfig", "ResNetForImageClassification"),
        {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 1]},
    ),
    "mobilenet_v2": ("MobileNetV2Config", "MobileNetV2ForImageClassification", {}),
}


def small(names: Sequence[str]) -> str:
    """Return a small network of a module of timm, by the usual words for small ones."""
    for word in _SMALL_FIRST.split():
        found = [name for name in names if word in name]
        if found:
            return min(found, key=lambda name: (len(name), name))
    return min(names, key=lambda name: (len(name), name))


def zoo() -> list[str]:
    """Return the names of all networks."""
    timm = __import__("timm")
    modules = [m for m in timm.list_modules() if timm.list_models(module=m)]
    return [*(f"hf/{name}" for name in FAMILIES), *(f"timm/{module}" for module in modules)]


def make(name: str) -> tuple[str, nn.Module, list[Tensor]]:
    """Return the full name of a network, the network, and inputs of one or two sizes."""
    library, _, key = name.partition("/")
    if library == "hf":
        transformers = __import__("transformers")
        config, model, settings = FAMILIES[key]
        made = getattr(transformers, model)(getattr(transformers, config)(**settings))
        if "vocab_size" in settings:
            return model, made.eval(), [torch.randint(1, 50, (2, n)) for n in (7, 11)]
        return model, made.eval(), [torch.randn(2, 3, n, n) for n in (32, 48)]
    timm = __import__("timm")
    full = small(timm.list_models(module=key))
    network = timm.create_model(full, pretrained=False, num_classes=10).eval()
    accepted = []
    with torch.no_grad():
        default = int(network.default_cfg["input_size"][-1])
        for size in (*IMAGE_SIZES, default):
            x = torch.randn(2, 3, size, size)
            try:
                network(x[:1])
            except Exception:  # a size that this network does not take
                continue
            accepted.append(x)
            if len(accepted) == 2:
                break
    return full, network, accepted


def vary(network: nn.Module) -> None:
    """Draw statistics, scales and biases: zeros and ones would hide faults."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    for parameter in network.parameters():
        if parameter.ndim < 2:
            parameter.data += 0.1 * torch.randn_like(parameter)
        elif not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)


def difference(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Return the largest difference of two networks, relative to the largest output."""
    outputs = []
    for network in (one, other):
        torch.manual_seed(0)
        with torch.no_grad():
            leaves = tree_leaves(plain_containers(network(x)))
        tensors = [leaf.double().reshape(-1) for leaf in leaves if isinstance(leaf, Tensor)]
        outputs.append(torch.cat(tensors))
    a, b = outputs
    return float((a - b).abs().max() / a.abs().max().clamp(min=1.0))


def measure(name: str) -> dict[str, Any]:
    """Prune one network at random and return how far each step came."""
    torch.manual_seed(0)
    full, network, inputs = make(name)
    vary(network)
    x = inputs[0]
    found: dict[str, Any] = {"network": full, "shape": list(x.shape)}
    started = time.perf_counter()
    try:
        edges = find_edges(network, example_input=x)
    except EdgeError as error:
        return {**found, "step": "refused at find_edges", "reason": str(error)[:300]}
    found["find_seconds"] = time.perf_counter() - started
    found |= {"num_groups": len(edges), "candidate_share": candidate_share(edges)}
    found["num_skipped"] = len(edges.skipped)
    mask = {group.name: torch.rand(group.shape) < DENSITY for group in edges}
    for keep in mask.values():
        keep[0] |= not bool(keep.any())
    try:
        pruned = prune(network, edges, mask, example_input=x)
    except (ValueError, RuntimeError) as error:
        return {**found, "step": "refused at prune", "reason": str(error)[:300]}
    found["is_list"] = isinstance(pruned.network, GraphNetwork)
    masked = apply_mask(network, edges, mask).eval()
    fresh = torch.randn_like(x) if x.is_floating_point() else x.flip(1)
    found["difference"] = difference(masked, pruned, fresh)
    predicted, counted = masked_cost(edges, mask), pruned.receipt.after
    found["macs_over"] = predicted.num_macs - counted.num_macs
    found["parameters_over"] = predicted.num_parameters - counted.num_parameters
    found["other_size"] = _at_other_size(masked, pruned, inputs[1:])
    found["saved"] = _saved(pruned, fresh)
    found["seconds"] = time.perf_counter() - started
    return {**found, "step": "exact" if found["difference"] <= TOLERANCE else "differs"}


def _at_other_size(masked: nn.Module, pruned: nn.Module, inputs: Sequence[Tensor]) -> str:
    for x in inputs:
        try:
            return "exact" if difference(masked, pruned, x) <= TOLERANCE else "differs"
        except ValueError as error:
            return "refused" if "written down for such sizes" in str(error) else str(error)[:200]
        except Exception as error:  # whatever the network raises is a finding
            return str(error)[:200]
    return "one size only"


def _saved(pruned: Any, x: Tensor) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        try:
            pruned.save(path)
            loaded = load_pruned(path)
        except ValueError as error:
            return str(error)[-300:]
        return "exact" if difference(pruned, loaded, x) <= TOLERANCE else "differs"


def in_child(name: str, limit: float) -> dict[str, Any]:
    """Measure a network in a process of its own; what it raises, or the limit, is a finding."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "analysis.bench_zoo", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        lines = done.stdout.strip().splitlines()
        crashed = done.returncode or not lines
        found = (
            {"step": "crash", "reason": done.stderr[-300:]} if crashed else json.loads(lines[-1])
        )
    except subprocess.TimeoutExpired:
        found = {"step": "out of time"}
    return {**found, "wall": time.perf_counter() - started}


def main() -> None:
    """Read the command line and measure."""
    if "--one" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--one")
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        print(json.dumps(measure(parser.parse_args().one)))
        return
    command = Command("bench_zoo", __doc__)
    command.add_argument("--only", nargs="*", help="names, such as timm/resnet and hf/gpt2")
    command.add_argument("--limit", type=float, default=180.0, help="seconds for one network")
    command.add_argument("--hours", type=float, default=24.0, help="no network begins after these")
    arguments = command.parse_args()
    names = arguments.only or zoo()
    parts = Parts.of("zoo", arguments.out)
    about = {"density": DENSITY, "limit": arguments.limit}
    found: dict[str, dict[str, Any]] = {}
    started = time.perf_counter()
    for name in names:
        late = time.perf_counter() - started > 3600 * arguments.hours
        if late and not parts.has(name.replace("/", "-"), about):
            continue
        compute = partial(in_child, name, arguments.limit)
        found[name] = parts.once(name.replace("/", "-"), about, compute)
        print(f"{name:28s} {json.dumps({k: v for k, v in found[name].items() if k != 'about'})}")
        sys.stdout.flush()
    numbers = ("difference", "candidate_share", "num_groups", "macs_over", "seconds")
    rows = [
        runs_row("random cut", name, [{key: float(part[key]) for key in numbers}])
        for name, part in found.items()
        if part["step"] == "exact"
    ]
    plain = {n: {k: v for k, v in p.items() if k != "about"} for n, p in found.items()}
    path = write_record(
        "zoo",
        command=command.line(),
        settings={**about, "networks": plain, "not_run": sorted(set(names) - set(found))},
        rows=rows,
        wall_seconds=sum(part["wall"] for part in found.values()),
        folder=arguments.out,
    )
    print(f"{len(rows)} of {len(found)} networks exact. {path}")


if __name__ == "__main__":
    main()
