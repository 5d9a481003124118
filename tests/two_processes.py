"""A script or a module in two processes of torchrun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["in_two_processes"]


def in_two_processes(*arguments: str, folder: Path | None = None) -> None:
    """Run it, and fail with what it told where it fails.

    Args:
        arguments: The script, or ``-m`` and the module, and its arguments.
        folder: Where it runs.
    """
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*run, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
