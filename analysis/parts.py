"""Parts of a long experiment, each kept in a file of its own, so that a killed one goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_relevance.comparison.records import write_json

__all__ = ["Parts"]


@dataclass(frozen=True)
class Parts:
    """The kept parts of an experiment.

    Args:
        folder: Where they lie.
    """

    folder: Path

    @classmethod
    def of(cls, record: str, folder: Path) -> Parts:
        """Return the parts of a record; their hidden folder is made beside it.

        Args:
            record: Name of the record.
            folder: Folder of the record.
        """
        hidden = folder / f".{record}"
        hidden.mkdir(parents=True, exist_ok=True)
        return cls(hidden)

    def path(self, name: str, suffix: str = ".json") -> Path:
        """Return the path of a file of a part.

        Args:
            name: The part, such as ``"weights, first cut-0"``.
            suffix: End of the file's name.
        """
        return self.folder / f"{name.replace(',', '').replace(' ', '_')}{suffix}"

    def has(self, name: str, about: Mapping[str, Any]) -> bool:
        """Whether a part was kept that was made with the same settings.

        Args:
            name: The part.
            about: All that it depends on.
        """
        return self._read(name, about) is not None

    def once(
        self, name: str, about: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the content of a part; it is computed and kept unless it was made before.

        Args:
            name: The part.
            about: All that it depends on.
            compute: Makes its content.
        """
        content = self._read(name, about)
        if content is None:
            content = {"about": dict(about), **compute()}
            write_json(self.path(name), content)
        return content

    def _read(self, name: str, about: Mapping[str, Any]) -> dict[str, Any] | None:
        path = self.path(name)
        if not path.exists():
            return None
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Through JSON, since tuples come back as lists.
        return content if content.get("about") == json.loads(json.dumps(about)) else None
