"""One entry for all facts about an operator, and the decorator that adds an entry.

The walks over a network find an operator by its name, and a module by its class. Units that pass
through an operator without an entry are not offered, and that is their reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import fx, nn

if TYPE_CHECKING:
    from pyro_relevance.edges.coupling.labelling import Labelling

__all__ = [
    "LastAxis",
    "LayerAxes",
    "Operator",
    "Rule",
    "find",
    "find_module",
    "module_arguments",
    "module_named",
    "note",
    "operator",
    "registered",
    "rewrites",
    "temporary",
    "unregister",
]

Rule = Callable[["Labelling", fx.Node, str], Any]
"""From the labels so far, a call and its operator's name to the labels of the result."""
LastAxis = Literal["apart", "channels", "together", "flattened", "reshaped", "asked"]
"""What happens to position j of the last axis: it depends on position j alone (``"apart"``), with
parameters of its own (``"channels"``), on all of them (``"together"``), or it may move
(``"flattened"``, ``"reshaped"``); ``"asked"`` is for sizes, which are no values of units."""
_Any = TypeVar("_Any", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class LayerAxes:
    """Axes of the weight of a layer.

    Args:
        makes: Axis that makes units.
        reads: Axis that reads units.
        spatial: Number of spatial axes.
    """

    makes: int
    reads: int
    spatial: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """The facts about one operator; all fields but its names are optional.

    Args:
        names: Names of operators of ATen (``"group_norm"``), of functions and methods as
            ``torch.fx`` shows them (``"truediv"``), or ``"namespace::name"``.
        couples: Rule that says which units meet in its result; without one, operators that torch
            tags as pointwise are followed as such, and others not at all.
        last_axis: Its effect along the last axis. The walk without an example follows operators
            with ``"apart"`` and ``"channels"``.
        layer: Axes of its weight, if it is a layer.
        modules: Modules that compute it, each with the names of the arguments that build it;
            ``None`` for one that is not written to files.
        resize: Corrects the sizes that such a module stores, after its tensors were pruned.
        rewrite: From a writer and a call to the call after pruning: positional and named arguments
            and the operator. Without it, the call stays the same.
        saved: Whether a network in a file may call it. It must turn tensors into tensors and do
            nothing else.
        macs: Multiply-accumulates of a call from the shapes of its arguments and ``out_shape``. By
            default torch counts them.
    """

    names: tuple[str, ...]
    couples: Rule | None = None
    last_axis: LastAxis | None = None
    layer: LayerAxes | None = None
    modules: Mapping[type[nn.Module], str | None] = field(default_factory=dict)
    resize: Callable[[Any], None] | None = None
    rewrite: Callable[[Any, fx.Node], Any] | None = None
    saved: bool = False
    macs: Callable[..., int] | None = None


_by_name: dict[str, Operator] = {}
_by_module: dict[type[nn.Module], Operator] = {}
_NOTHING = Operator(())


def operator(*names: str, **facts: Any) -> Callable[[_Any], _Any]:
    """Register an operator; decorates the rule that says which units meet in its result.

    Args:
        names: Its names; ``"namespace::name"`` for an operator of ``torch.library``.
        facts: Other fields of :class:`Operator`.

    Returns:
        A decorator that returns the rule unchanged.

    Raises:
        ValueError: There is no name, or a name or module is registered already.
        TypeError: A field is unknown.
    """

    def register(rule: _Any) -> _Any:
        _add(Operator(names, rule, **facts))
        return rule

    return register


def note(*names: str, **facts: Any) -> None:
    """Register facts about an operator that has no rule of its own."""
    _add(Operator(names, **facts))


def rewrites(*names: str) -> Callable[[_Any], _Any]:
    """Register how the calls of known operators are rewritten; decorates that rule."""

    def add(rule: _Any) -> _Any:
        for old in dict.fromkeys(_by_name[name] for name in names):
            new = replace(old, rewrite=rule)
            _by_name.update({name: new for name in names if _by_name[name] is old})
            _by_module.update(dict.fromkeys(old.modules, new))
        return rule

    return add


def unregister(name: str) -> None:
    """Forget an operator with all its names.

    Raises:
        ValueError: No operator of that name is registered.
    """
    entry = _by_name.get(name)
    if entry is None:
        raise ValueError(
            f"Expected the name of a registered operator, but got {name!r}. Register it with "
            "pr.operators.operator."
        )
    for known in entry.names:
        _by_name.pop(known, None)
    for module in entry.modules:
        _by_module.pop(module, None)


@contextmanager
def temporary() -> Iterator[None]:
    """Undo all registrations inside the block when it is left."""
    names, classes = dict(_by_name), dict(_by_module)
    try:
        yield
    finally:
        _by_name.clear()
        _by_name.update(names)
        _by_module.clear()
        _by_module.update(classes)


def find(name: str) -> Operator:
    """Return the entry of an operator; an empty entry if there is none."""
    return _by_name.get(name, _NOTHING)


def find_module(module: nn.Module) -> Operator:
    """Return the entry of a module's class, or of its nearest base class."""
    for kind in type(module).__mro__:
        if kind in _by_module:
            return _by_module[kind]
    return _NOTHING


def module_arguments(kind: type[nn.Module]) -> str | None:
    """Return the names of the arguments that build a module; ``None`` where files hold none."""
    return _by_module.get(kind, _NOTHING).modules.get(kind)


def module_named(name: str) -> type[nn.Module]:
    """Return the class that has this name in files.

    Raises:
        KeyError: There is none.
    """
    for kind in _by_module:
        if kind.__name__ == name and module_arguments(kind) is not None:
            return kind
    raise KeyError(name)


def registered() -> tuple[Operator, ...]:
    """Return all entries, each once, in the order in which they were registered."""
    return tuple(dict.fromkeys(_by_name.values()))


def _add(entry: Operator) -> None:
    if not entry.names:
        raise ValueError(
            "Expected at least one name of an operator, but got none. Give 'namespace::name'."
        )
    for name in entry.names:
        if name in _by_name:
            raise ValueError(
                f"Expected an operator that is not registered yet, but got {name!r}. Call "
                "pr.operators.unregister first, or register it inside of pr.operators.temporary."
            )
    taken = {kind.__name__ for kind in _by_module}  # files know a module by this name
    for module in entry.modules:
        if module.__name__ in taken:
            raise ValueError(
                "Expected modules of names that no registered module has, but got "
                f"{module.__name__!r}. Rename the class, or unregister its operator first."
            )
    _by_name.update(dict.fromkeys(entry.names, entry))
    _by_module.update(dict.fromkeys(entry.modules, entry))
