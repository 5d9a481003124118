"""The table of torchvision's networks under random masks, as Markdown, from its record.

python -m analysis.table_torchvision
"""

from __future__ import annotations

from analysis.records import read_record


def main() -> None:
    """Print one line for each network."""
    print(
        "| network | groups | candidate share of the parameters | difference "
        "| parameters, millions | after pruning | MACs kept | seconds |\n" + 8 * "|---" + "|"
    )
    for row in read_record("torchvision_cut")["rows"]:
        found = {name: metric["mean"] for name, metric in row["metrics"].items()}
        cells = [
            row["task"],
            f"{found['num_groups']:.0f}",
            f"{found['judged_share']:.2f}",
            f"{found['max_difference']:.0e}",
            f"{found['num_parameters_before'] / 1e6:.1f}",
            f"{found['num_parameters'] / 1e6:.1f}",
            f"{found['num_macs'] / found['num_macs_before']:.2f}",
            f"{found['total_seconds']:.0f}",
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
