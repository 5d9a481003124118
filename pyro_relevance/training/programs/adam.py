"""Fused Adam whose steps cost less Python, for small networks.

Between torch's ``Adam.step`` and its kernel lie checks that do not change from step to step; for a
network of some hundred weights they take longer than all its arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = ["Adam"]


class Adam(torch.optim.Adam):
    """Torch's fused Adam; `update` takes the same step, bit by bit.

    The name is that of torch's class, so that a checkpoint is of the same run with either.

    Args:
        groups: Parameter groups with ``lr`` set.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, fused=True)
        kinds = [{(p.dtype, p.device) for p in g["params"]} for g in self.param_groups]
        self._uniform = all(len(kind) == 1 for kind in kinds)

    def update(self) -> None:
        """Take a step without the checks, where the first one has passed them."""
        groups = [_lists(group, self.state) for group in self.param_groups]
        if not self._uniform or self._has_hooks() or None in groups:
            self.step()
            return
        with torch.no_grad():
            for group, lists in zip(self.param_groups, groups, strict=True):
                if lists is None or not lists[0]:
                    continue
                parameters, gradients, means, squares, steps = lists
                torch._foreach_add_(steps, 1)
                torch._fused_adam_(
                    parameters,
                    gradients,
                    means,
                    squares,
                    [],
                    steps,
                    amsgrad=False,
                    lr=group["lr"],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=group["maximize"],
                    grad_scale=None,
                    found_inf=None,
                )

    def _has_hooks(self) -> bool:
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        )


_Lists = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


def _lists(group: dict[str, Any], states: Any) -> _Lists | None:
    """Return parameters, gradients, both moments and steps; None where a state is still missing."""
    lists: _Lists = ([], [], [], [], [])
    for parameter in group["params"]:
        gradient = parameter.grad
        if gradient is None:
            continue
        state = states.get(parameter)
        if not state:
            return None
        lists[0].append(parameter)
        lists[1].append(gradient)
        lists[2].append(state["exp_avg"])
        lists[3].append(state["exp_avg_sq"])
        lists[4].append(state["step"])
    return lists
