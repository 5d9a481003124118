"""A table: from CSV to prediction in two commands
===============================================

An analyst has a CSV file and a column to predict. Two commands say which columns matter, train a small
network, and predict new rows with intervals. Everything they write lies in one *run folder*.

.. code-block:: bash

   pyro-relevance table data/boston.csv --target MEDV
   pyro-relevance predict runs/boston-MEDV new.csv --out predictions.csv

Here the same two commands run from Python, on the Boston data that the library ships, with fewer steps
and chains than the defaults so that this page is built in seconds. Leave these options out for real work.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyro_relevance as pr

folder = Path(tempfile.mkdtemp())
frame = pr.datasets.boston().features.assign(MEDV=pr.datasets.boston().target)
frame.iloc[:-6].to_csv(folder / "houses.csv", index=False)
frame.iloc[-6:].drop(columns="MEDV").to_csv(folder / "new.csv", index=False)


def command(*words):
    """Run ``pyro-relevance ...`` in the folder."""
    done = subprocess.run(
        [sys.executable, "-m", "pyro_relevance", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "110"},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr)


# %%
# Which columns are relevant?
# ---------------------------
# The report starts with a verdict on the fit. Then come the columns that are relevant at a false discovery
# rate of 0.1, tested on held-out rows, and beside them what the small network reads: prediction and
# relevance are two jobs, and where they disagree the report says so. See :doc:`/trust`.

command(
    *("table", "houses.csv", "--target", "MEDV"),
    *("--steps", "600", "--chains", "2", "--folds", "2", "--workers", "1", "--quiet"),
)

# %%
# Figures are in the run folder, as PDF and PNG:

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.image import imread  # noqa: E402

forest = Figure(figsize=(6.9, 3.2), layout="constrained")
axes = forest.subplots()
axes.imshow(imread(folder / "runs" / "houses-MEDV" / "relevance.png"))
axes.set_axis_off()

# %%
# Predict new rows
# ----------------
# The run folder holds encoder, network, units and noise. Columns may be in any order, and the target may be
# absent.

command("predict", "runs/houses-MEDV", "new.csv", "--out", "predictions.csv")
print((folder / "predictions.csv").read_text())

# %%
# The same from Python
# --------------------
# :func:`pyro_relevance.load_run` reads a run folder. The file ``posterior.nc`` in it is for ArviZ, see
# :doc:`plot_5_posterior_in_arviz`.

run = pr.load_run(folder / "runs" / "houses-MEDV")
print(run.predict(frame.iloc[-6:].drop(columns="MEDV")))
