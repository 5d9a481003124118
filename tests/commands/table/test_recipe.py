"""The recipe for tables and its cross-validation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pyro_relevance import likelihoods, masks
from pyro_relevance.commands.table.recipe import TableRecipe, evaluate, held_out, make_model, train
from pyro_relevance.model.model import RelevanceModel

QUICK = TableRecipe(hidden=(6,), num_steps=40, batch_size=20)


def make(recipe: TableRecipe, num_rows: int) -> RelevanceModel:
    return make_model(recipe, num_data=num_rows, num_inputs=3)


def data(num_rows: int = 41) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(num_rows, 3)
    return x, x[:, 0] + 0.05 * torch.randn(num_rows)


@pytest.mark.contract
def test_every_row_but_the_remainder_is_held_out_once() -> None:
    x, y = data(41)
    ((held,),) = held_out([QUICK], make, [(x, y)], num_folds=4)
    assert held.y.shape == (40,)
    assert len(set(held.y.tolist()) & set(y.tolist())) == 40
    assert held.sampled.shape == (100, 40, 1)
    assert held.pruned.shape == (1, 40, 1)


@pytest.mark.exact
def test_held_out_rows_do_not_reach_their_own_fold() -> None:
    """A held-out target that is made absurd changes no prediction of its own fold."""
    x, y = data(40)
    ((first,),) = held_out([QUICK], make, [(x, y)], num_folds=2)
    changed = y.clone()
    fold = [int((y == value).nonzero()[0]) for value in first.y[:20]]
    changed[fold] = 1e3
    ((second,),) = held_out([QUICK], make, [(x, changed)], num_folds=2)
    assert torch.equal(first.pruned[:, :20], second.pruned[:, :20])
    assert not torch.equal(first.pruned[:, 20:], second.pruned[:, 20:])


@pytest.mark.contract
def test_candidates_share_one_run_and_keep_their_own_numbers() -> None:
    recipes = [QUICK, replace(QUICK, prior_log_odds=-4.0, noise_scale=0.5)]
    models = [make(recipe, 40) for recipe in recipes]
    posterior = train(QUICK, models, data(40), num_chains=2).posterior
    odds = posterior.state["model.prior_log_odds"]
    noise = posterior.state["model.likelihood.log_scale"].exp()
    assert torch.equal(odds[:, 0], torch.tensor([-1.5, -4.0]))
    assert torch.allclose(noise[:, 0], torch.tensor([0.11, 0.5]))


@pytest.mark.contract
def test_models_of_one_run_may_not_differ_in_structure() -> None:
    models = [make(QUICK, 40), make(replace(QUICK, hidden=(7,)), 40)]
    with pytest.raises(ValueError, match="chains 0 and 1 differ in edges"):
        train(QUICK, models, data(40), num_chains=2)
    models = [make(QUICK, 40), make(replace(QUICK, bias_scale=2.0), 40)]
    with pytest.raises(ValueError, match="chains 0 and 1 differ in weight_prior"):
        train(QUICK, models, data(40), num_chains=2)
    with pytest.raises(ValueError, match="Expected one model for each of 3 chains"):
        train(QUICK, models[:1] * 2, data(40), num_chains=3)


@pytest.mark.exact
def test_outputs_of_the_pruned_network_are_those_of_its_mask() -> None:
    x, y = data(40)
    posterior = train(QUICK, make(QUICK, 40), (x, y), num_chains=1).posterior
    mask = masks.top_fraction(posterior, 0.5)
    outputs = evaluate(posterior, x, mask)
    hidden = posterior.network()
    with torch.no_grad():
        gates = {name: keep.float() for name, keep in mask.items()}
        folded = posterior.edges.fold(dict(hidden.named_parameters()), gates)
        expected = torch.func.functional_call(hidden, folded, (x,))
    assert torch.allclose(outputs[0], expected, atol=1e-6)


@pytest.mark.contract
def test_the_dense_recipe_has_no_gates_and_classes_have_no_noise() -> None:
    assert not make(replace(QUICK, gated=False), 40).has_gates
    model = make_model(QUICK, num_data=40, num_inputs=3, num_classes=4)
    assert isinstance(model.likelihood, likelihoods.Categorical)
    assert model.network.output.out_features == 4


@pytest.mark.contract
def test_the_number_of_folds_is_checked() -> None:
    with pytest.raises(ValueError, match="Expected 2 <= num_folds <= 40 rows, but got 1"):
        held_out([QUICK], make, [data(40)], num_folds=1)
