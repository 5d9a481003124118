"""Examples that a network does not accept are told in words, before any work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyro_relevance as pr
from pyro_relevance.errors import EdgeError, SurgeryError


@pytest.mark.contract
@pytest.mark.parametrize(
    ("example", "error", "words"),
    [
        (torch.ones(2, 4, dtype=torch.long), SurgeryError, r"of torch.int64 failed: mat1 and mat2"),
        (torch.ones(2, 4, dtype=torch.complex64), SurgeryError, "of torch.complex64 failed"),
        (torch.ones(2, 3), SurgeryError, r"shape \(2, 3\) of torch.float32 failed"),
        ([[1.0, 2.0, 3.0, 4.0]], TypeError, "a tensor or a tuple of tensors, but got list"),
        (np.ones((2, 4)), TypeError, "but got ndarray. Convert arrays with torch.as_tensor"),
    ],
)
def test_an_example_that_the_network_does_not_accept_is_told(example, error, words):
    network = pr.networks.MLP(4, [5], 1)
    edges = pr.find_edges(network, granularity="unit")
    mask = {group.name: torch.arange(group.num_edges).reshape(group.shape) > 1 for group in edges}
    with pytest.raises(error, match=words):
        pr.prune(network, edges, mask, example_input=example)
    with pytest.raises(EdgeError if error is SurgeryError else TypeError) as caught:
        pr.find_edges(network, granularity="unit", example_input=example)
    assert len(str(caught.value).splitlines()) == 1
