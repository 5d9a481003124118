"""The middle of the main job, without test rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_relevance import apply_mask, tables
from pyro_relevance.commands.table.fitting import fit_table
from pyro_relevance.commands.table.job import Job
from tests.commands.test_main import write_table
from tests.commands.test_predict import SETTINGS


@pytest.mark.exact
def test_no_test_rows_are_needed(tmp_path: Path) -> None:
    """All rows are trained on, and the pruned network is the masked one of the best chain."""
    table = tables.read_table(write_table(tmp_path / "things.csv"), target="y")
    job = Job.of(table, replace(SETTINGS, num_chains=3), (np.arange(table.num_rows), np.arange(0)))
    assert len(job.training[0]) == table.num_rows
    assert job.test[0].shape == (0, job.encoder.num_columns)
    done = fit_table(job)
    x, y = job.training
    bounds = done.fit.posterior.elbo(x, y)
    assert done.chain == int(torch.as_tensor(bounds).argmax())
    masked = apply_mask(done.posterior.network(), done.posterior.edges, done.mask)
    with torch.no_grad():
        assert torch.allclose(done.pruned(x)(x), masked(x), atol=1e-5)
    assert [group.name for group in done.tested.groups] == list(job.encoder.input_labels)
