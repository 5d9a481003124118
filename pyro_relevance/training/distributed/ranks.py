"""The processes of a distributed fit: shares of the examples, and what they tell each other."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

__all__ = ["Ranks"]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """The processes of torch's default group, and the place of this one among them.

    Args:
        rank: Number of this process.
        number: Of all processes.
    """

    rank: int = 0
    number: int = 1

    @classmethod
    def of_group(cls) -> Ranks:
        """Return those of the group that was initialised.

        Raises:
            ValueError: If there is none.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            raise ValueError(
                "Expected a process group for distributed=True, but none is initialised. Call "
                "torch.distributed.init_process_group() first, in a script that torchrun starts."
            )
        return cls(distributed.get_rank(), distributed.get_world_size())

    def rows(self, num_data: int) -> Tensor:
        """Return the numbers of this process's examples: each has every ``number``-th one.

        Shares are equally long, so that all processes take as many steps: where the examples
        cannot be shared out evenly, the first ones are in two shares.

        Args:
            num_data: Examples of all processes together.
        """
        longest = -(-num_data // self.number)
        return (self.rank + self.number * torch.arange(longest)) % num_data

    def share_of_batch(self, batch_size: int | None) -> int | None:
        """Return how many examples of a step are this process's.

        Args:
            batch_size: Examples in a step of all processes together; ``None`` for all.

        Raises:
            ValueError: If they cannot be shared out evenly.
        """
        if batch_size is None:
            return None
        if batch_size % self.number:
            raise ValueError(
                f"Expected a batch_size that {self.number} processes can share evenly, but got "
                f"{batch_size}. Pass a multiple of {self.number}."
            )
        return batch_size // self.number

    def first_says(self, value: Value) -> Value:
        """Return the value of the first process, in all of them.

        Args:
            value: Anything that can be pickled.
        """
        values: list[Any] = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[no-any-return]

    def first_does(self, act: Callable[[], Value]) -> Value:
        """Return in all processes what a function returns in the first one, which alone calls it.

        Args:
            act: The function; what it raises is raised in all of them.
        """
        result: Value | None = None
        error: Exception | None = None
        if self.rank == 0:
            try:
                result = act()
            except Exception as raised:  # the others wait for an answer
                error = raised
        result, error = self.first_says((result, error))
        if error is not None:
            raise error
        return cast(Value, result)

    def gathered(self, value: Value) -> list[Value]:
        """Return the values of all processes, in all of them.

        Args:
            value: Anything that can be pickled.
        """
        values: list[Any] = [None] * self.number
        distributed.all_gather_object(values, value)
        return values

    def leave(self) -> None:
        """Wait until all processes are done with their messages."""
        distributed.barrier()
        # A thread of gloo needs the interpreter to let go of the last message. A process that ends
        # before it has done so aborts.
        time.sleep(0.2)

    def identity(self, run: str) -> str:
        """Return the fingerprint of a run from that of each process's part of it.

        Args:
            run: That of this process.
        """
        if self.number == 1:
            return run
        return hashlib.sha256(" ".join(self.gathered(run)).encode()).hexdigest()

    def average(self, tensors: list[Tensor]) -> None:
        """Set tensors to their means over the processes, in one message.

        Args:
            tensors: Of one type and device, in each process of the same shapes.
        """
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.number
        parts = flat.split([tensor.numel() for tensor in tensors])
        with torch.no_grad():
            views = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
            torch._foreach_copy_(tensors, views)

    def copy_first(self, tensors: list[Tensor]) -> None:
        """Set tensors to those of the first process.

        Args:
            tensors: In each process of the same shapes and types.
        """
        with torch.no_grad():
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)
