"""Stability of a selection over seeds or perturbed data, with the variance of the estimate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from pyro_relevance.masks import Mask

__all__ = ["Stability", "stability"]


@dataclass(frozen=True, slots=True)
class Stability:
    """Stability of a selection over repetitions; larger = more stable.

    Args:
        index: 1 where all masks agree, 0 in expectation where each keeps edges at random.
        variance: Estimated variance of `index`.
        lower: Lower end of the confidence interval (not clipped).
        upper: Upper end of the confidence interval (not clipped).
        confidence: Coverage of the interval, fraction.
    """

    index: float
    variance: float
    lower: float
    upper: float
    confidence: float


def stability(masks: Sequence[Mask], *, confidence: float = 0.95) -> Stability:
    """Stability of M masks over d edges, with the variance of the estimate.

    With z_if = 1 where mask i keeps edge f, p_f its mean over masks, k_i the number of edges that
    mask i keeps and k its mean,

        index = 1 - [ (1/d) sum_f M/(M-1) p_f (1 - p_f) ] / [ (k/d) (1 - k/d) ]

        phi_i = [ (1/d) sum_f z_if p_f - k_i k / d^2
                  + (index/2) (2 k_i k / d^2 - k_i/d - k/d + 1) ] / [ (k/d) (1 - k/d) ]

        variance = (4 / M^2) sum_i (phi_i - mean(phi))^2

    The index lies in [-1/(M-1), 1]. Where all masks keep everything, or nothing, the formula is
    0/0; the masks agree, and the index is 1 by convention.

    Args:
        masks: At least two masks of the same edges, e.g. of the inputs under different seeds or
            perturbed data.
        confidence: Coverage of the normal interval, fraction in (0, 1).

    Raises:
        ValueError: Where there are fewer than two masks, or they are of different edges.

    References:
        Nogueira, Sechidis and Brown, On the stability of feature selection algorithms, JMLR 2018.
    """
    if len(masks) < 2:
        raise ValueError(f"Expected at least 2 masks, but got {len(masks)}. Repeat the selection.")
    if not 0 < confidence < 1:
        raise ValueError(f"Expected a confidence in (0, 1), but got {confidence}. Write 0.95.")
    shapes = [{name: tuple(keep.shape) for name, keep in mask.items()} for mask in masks]
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"Expected masks of the same edges {shapes[0]}, but masks[{i}] has {shape}. "
                "Compare masks of the same groups."
            )
    z = torch.stack(
        [torch.cat([mask[name].cpu().reshape(-1) for name in masks[0]]) for mask in masks]
    ).double()
    num_masks, num_edges = z.shape
    p, k = z.mean(dim=0), z.sum(dim=1)
    density = float(k.mean()) / num_edges
    chance = density * (1 - density)
    if chance == 0:
        return Stability(1.0, 0.0, 1.0, 1.0, confidence)
    index = 1 - float((p * (1 - p)).mean()) * num_masks / (num_masks - 1) / chance
    share = k / num_edges
    phi = (
        (z @ p) / num_edges
        - share * density
        + index / 2 * (2 * share * density - share - density + 1)
    ) / chance
    variance = 4 / num_masks**2 * float((phi - phi.mean()).square().sum())
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    return Stability(index, variance, index - half, index + half, confidence)
