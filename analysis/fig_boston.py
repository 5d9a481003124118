"""Figures of the main job on the Boston data: the network before and after, relevance of inputs.

Double column. Caption facts: one split of the rows (seed 0), 8 chains, the chain with the highest
evidence lower bound is drawn; edges are coloured by their posterior inclusion probability.

    python -m analysis.fig_boston
"""

from __future__ import annotations

from analysis.figure_files import FIGURES
from pyro_relevance import datasets, plots
from pyro_relevance.commands.table.files import arviz_of
from pyro_relevance.commands.table.report import table_report
from pyro_relevance.commands.table.run import run_table
from pyro_relevance.commands.table.settings import TableSettings


def main() -> None:
    """Run the main job and draw."""
    run = run_table(datasets.boston(), TableSettings())
    print(table_report(run))
    FIGURES.mkdir(exist_ok=True)
    idata = arviz_of(run)
    kept = {name: mask.numpy() for name, mask in run.mask.items()}
    figure = plots.network(idata, mask=kept, chain=run.chain, view="graph")
    _, png = plots.save(figure, FIGURES / "boston_network")
    figure.savefig(png, dpi=100)  # for the README; the PDF is the one for a paper
    print(*plots.save(plots.relevance(idata), FIGURES / "boston_relevance"))


if __name__ == "__main__":
    main()
