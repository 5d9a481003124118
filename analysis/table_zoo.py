"""The table of public networks under random masks, as Markdown, from its record.

python -m analysis.table_zoo
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from analysis.records import read_record


def line(name: str, found: dict[str, Any]) -> str:
    """Return the line of one network."""
    if found["step"] != "exact":
        reason = found.get("reason", "").replace("|", "/").replace("\n", " ")[:160]
        return f"| {name} | {found.get('network', '')} | {found['step']} | {reason} | | | |"
    return (
        f"| {name} | {found['network']} | {found['difference']:.0e} | {found['other_size'][:60]} | "
        f"{found['saved'][:60]} | {found['candidate_share']:.2f} | "
        f"{'operations' if found['is_list'] else 'modules'} |"
    )


def main() -> None:
    """Print one line for each network, and how many came how far."""
    networks = read_record("zoo")["settings"]["networks"]
    print("| name | network | difference | at another size | saved | share | form |")
    print(7 * "|---" + "|")
    for name, found in networks.items():
        print(line(name, found))
    for library in ("hf", "timm"):
        steps = Counter(p["step"] for n, p in networks.items() if n.startswith(library))
        print(f"{library}: {dict(steps)}")


if __name__ == "__main__":
    main()
