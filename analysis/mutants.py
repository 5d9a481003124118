"""Mutants of a module: its source with one small fault each, made by cosmic-ray's operators.

Positions are drawn first and faults at them second. cosmic-ray knows eleven replacements of a
plus sign and two of a number, and a draw among all faults would mostly be about plus signs.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

__all__ = ["Mutant", "count_positions", "draw_mutants"]

# These two need the names of variables; decorators are wiring and not mathematics.
_LEFT_OUT = ("VariableReplacer", "VariableInserter", "RemoveDecorator")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow")
_BITS = ("BitOr", "BitAnd", "BitXor")

Place = tuple[int, int]  # line from 1, column from 0


@dataclass(frozen=True)
class Mutant:
    """One module with one fault.

    Attributes:
        path: File of the module.
        line: Line of the fault.
        function: Dotted name of the function or class that has the fault; empty outside of any.
        operator: Name of cosmic-ray's operator.
        occurrence: Which of the operator's faults in this module, from 0.
        before: The line as it is.
        after: The line with the fault.
        source: The whole source with the fault.
    """

    path: Path
    line: int
    function: str
    operator: str
    occurrence: int
    before: str
    after: str
    source: str


def count_positions(path: Path) -> int:
    """Return how many places of a module can have a fault."""
    return len(_faults(path.read_text(encoding="utf-8")))


def draw_mutants(paths: Sequence[Path], number: int, seed: int) -> list[Mutant]:
    """Draw mutants of some modules, at different positions, all positions equally likely."""
    sources = {path: path.read_text(encoding="utf-8") for path in paths}
    places = [
        (path, position, faults)
        for path, source in sources.items()
        for position, faults in _faults(source).items()
    ]
    generator = random.Random(seed)
    generator.shuffle(places)
    drawn: list[Mutant] = []
    for path, _, faults in places:
        if len(drawn) == number:
            break
        generator.shuffle(faults)
        made = (_mutant(path, sources[path], *fault) for fault in faults)
        drawn += [mutant for mutant in made if mutant is not None][:1]
    return drawn


def _faults(source: str) -> dict[tuple[Place, Place], list[tuple[str, int]]]:
    """Return the faults, as operator and occurrence, at each position that counts."""
    nodes = list(ast_nodes(get_ast(source)))
    markers = {node.start_pos for node in nodes if _is_marker(node)}
    outside = list(_outside(ast.parse(source)))
    faults: dict[tuple[Place, Place], list[tuple[str, int]]] = {}
    for name in filter(_is_used, operator_names()):
        operator = get_operator(name)()
        positions = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(positions):
            left_out = any(first <= start and end <= last for first, last in outside)
            if not left_out and start not in markers:
                faults.setdefault((start, end), []).append((name, occurrence))
    return faults


def _is_marker(node: Any) -> bool:
    """Say whether a node is the star or slash between parameters."""
    return node.type == "operator" and node.parent.type in ("parameters", "lambdef")


def _is_used(name: str) -> bool:
    """Say whether a fault is one that a person might make: no bits for numbers, no ``is``."""
    kind, *operands = name.split("/")[1].split("_")
    if kind in _LEFT_OUT:
        return False
    if kind == "ReplaceBinaryOperator":
        return set(operands) <= set(_ARITHMETIC) or set(operands) <= set(_BITS)
    if kind == "ReplaceComparisonOperator":
        return len({"Is", "IsNot"} & set(operands)) in (0, 2)
    return True


def _outside(tree: ast.AST) -> Iterator[tuple[Place, Place]]:
    """Yield what is not judged: annotations, errors with their texts, imports for types."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield _range(node.annotation)
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield _range(node.returns)
        elif isinstance(node, ast.Raise) or _is_for_types(node):
            yield _range(node)


def _is_for_types(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _range(node: ast.expr | ast.stmt) -> tuple[Place, Place]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _mutant(path: Path, source: str, operator: str, occurrence: int) -> Mutant | None:
    """Return a mutant; none if the source with the fault is no Python or the same program."""
    mutated = mutate_code(source, get_operator(operator)(), occurrence)
    try:
        changed = mutated is not None and ast.dump(ast.parse(mutated)) != ast.dump(
            ast.parse(source)
        )
        if not changed:
            return None
        compile(mutated, str(path), "exec")
    except SyntaxError:
        return None
    lines = zip(source.splitlines(), mutated.splitlines(), strict=False)
    number, before, after = next(
        (number, before, after)
        for number, (before, after) in enumerate(lines, start=1)
        if before != after
    )
    function = _function(ast.parse(source), number)
    return Mutant(
        path, number, function, operator, occurrence, before.strip(), after.strip(), mutated
    )


def _function(tree: ast.AST, line: int) -> str:
    """Return the dotted name of the function or class, with its decorators, around a line."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert node.end_lineno is not None
            if first <= line <= node.end_lineno:
                return ".".join(filter(None, [node.name, _function(node, line)]))
    return ""
