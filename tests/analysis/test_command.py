"""Command lines of the experiments: all that README and docstrings show are understood."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from analysis.command import Command
from analysis.records import RESULTS

pytest.importorskip("sklearn")
FOLDER = Path(__file__).parents[2] / "analysis"


class ParsedError(Exception):
    """Stops an experiment after its options were read."""


def documented_commands() -> list[str]:
    """Return the commands of README and docstrings, of scripts that have options."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))]
    texts.append((FOLDER / "README.md").read_text(encoding="utf-8"))
    found = re.findall(r"(?m)python -m analysis\.(?:run|bench)_\w+[^`\n\[]*", "\n".join(texts))
    # A word in capitals stands for what the user fills in.
    return sorted({c.strip().replace("NAME", "boston") for c in found if "{" not in c})


@pytest.mark.contract
@pytest.mark.parametrize("text", documented_commands())
def test_a_documented_command_is_understood(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, *arguments = shlex.split(text.removeprefix("python -m "))

    def parse(self: Command, *args: Any) -> None:
        given = super(Command, self).parse_args(*args)
        assert self.line() == " ".join(["python -m", module, *arguments])
        assert given.out == RESULTS
        raise ParsedError

    monkeypatch.setattr(Command, "parse_args", parse)
    monkeypatch.setattr("sys.argv", [module, *arguments])
    with pytest.raises(ParsedError):
        importlib.import_module(module).main()


@pytest.mark.contract
def test_shared_options_have_the_defaults_of_the_experiment() -> None:
    command = Command("run_this", "Text.", smoke="two rounds")
    command.add_root("MNIST/raw")
    command.add_table()
    command.add_seeds(7, "runs")
    command.add_seed()
    command.add_validate()
    command.add_only("one method", ["a", "b"])
    given = command.parse_args(["--table", "cells.csv", "--only", "b"])
    assert (given.seeds, given.seed, given.root, given.only) == (7, None, None, "b")
    assert (given.smoke, given.validate, given.table) == (False, False, Path("cells.csv"))
    with pytest.raises(SystemExit):
        command.parse_args(["--table", "cells.csv", "--only", "c"])
    with pytest.raises(SystemExit):
        command.parse_args([])
    assert command.line(["--smoke"]) == "python -m analysis.run_this --smoke"


@pytest.mark.contract
def test_an_experiment_without_a_small_version_refuses_smoke() -> None:
    with pytest.raises(SystemExit):
        Command("bench_this", None).parse_args(["--smoke"])
