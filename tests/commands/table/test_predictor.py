"""New rows through encoder, network and noise of a run, in memory and from its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import pyro_relevance as pr
from pyro_relevance import likelihoods
from pyro_relevance.commands.table.predictor import Predictor, describe_noise
from pyro_relevance.data.tables import CategoryColumn, Encoder, NumericColumn
from pyro_relevance.errors import CheckpointError, DataError

ENCODER = Encoder(
    (NumericColumn("size", 2.0, 4.0, 1.5, False), CategoryColumn("colour", ("blue", "red"))),
    "regression",
    "price",
    100.0,
    10.0,
)
CLASSES = Encoder(
    (NumericColumn("size", 0.0, 1.0, 0.0, False),),
    "classification",
    "kind",
    0.0,
    1.0,
    ("no", "yes"),
)


def pruned(inputs: int, outputs: int) -> pr.PrunedNetwork:
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs)
    )
    edges = pr.find_edges(network, granularity="input")
    mask = pr.Mask({"inputs": torch.ones(inputs, dtype=torch.bool)})
    return pr.prune(network.eval(), edges, mask, example_input=torch.randn(3, inputs))


def regression() -> Predictor:
    return Predictor(ENCODER, pruned(3, 1), likelihoods.StudentT(3.0, noise_scale=0.4))


def rows() -> pd.DataFrame:
    return pd.DataFrame({"size": [2.0, 6.0, -2.0], "colour": ["red", "blue", "red"]})


@pytest.mark.exact
def test_predictions_are_in_the_units_of_the_target() -> None:
    predictor = regression()
    x = torch.tensor([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    with torch.no_grad():
        expected = 100.0 + 10.0 * predictor.network(x)[:, 0].double().numpy()
    np.testing.assert_allclose(predictor.predict(rows()), expected, rtol=1e-6)


@pytest.mark.exact
@pytest.mark.parametrize("probability", [0.5, 0.89])
def test_the_interval_is_that_of_the_noise(probability: float) -> None:
    predictor = regression()
    ends = predictor.predict_interval(rows(), probability)
    law = stats.t(3.0, loc=predictor.predict(rows()), scale=4.0)  # 0.4 of 10 units
    inside = law.cdf(ends[:, 1]) - law.cdf(ends[:, 0])
    np.testing.assert_allclose(inside, probability, rtol=1e-5)
    np.testing.assert_allclose(ends.mean(1), predictor.predict(rows()), rtol=1e-9)


@pytest.mark.exact
def test_classes_and_their_probabilities() -> None:
    predictor = Predictor(CLASSES, pruned(1, 2), likelihoods.Categorical())
    frame = pd.DataFrame({"size": np.linspace(-3.0, 3.0, 9)})
    probability = predictor.predict_proba(frame)
    with torch.no_grad():
        logits = predictor.network(torch.linspace(-3.0, 3.0, 9)[:, None])
    np.testing.assert_allclose(probability, logits.softmax(-1).numpy(), rtol=1e-5)
    wanted = np.where(probability[:, 1] > probability[:, 0], "yes", "no")
    assert predictor.predict(frame).tolist() == wanted.tolist()
    with pytest.raises(ValueError, match="Expected a target that is a quantity"):
        predictor.predict_interval(frame)
    with pytest.raises(ValueError, match="Expected a target of classes, but 'price'"):
        regression().predict_proba(rows())
    with pytest.raises(ValueError, match=r"Expected probability in \(0, 1\), but got 1"):
        regression().predict_interval(rows(), 1.0)


@pytest.mark.exact
def test_the_order_of_columns_and_further_columns_make_no_difference() -> None:
    predictor = regression()
    shuffled = rows()[["colour", "size"]].assign(other=["a", "b", "c"])
    np.testing.assert_allclose(predictor.predict(shuffled), predictor.predict(rows()), rtol=1e-9)


@pytest.mark.contract
def test_missing_columns_and_new_levels_are_told() -> None:
    predictor = regression()
    with pytest.raises(DataError, match="Expected the columns 'size', 'colour', but got rows with"):
        predictor.predict(rows()[["size"]])
    with pytest.raises(DataError, match="Expected each column once, but got 'size' more than once"):
        predictor.predict(rows()[["size", "colour", "size"]])
    with pytest.raises(TypeError, match="Expected a DataFrame .* but got ndarray"):
        predictor.predict(np.zeros((2, 2)))  # type: ignore[arg-type]
    frame = pd.DataFrame({"size": [np.nan, 2.0], "colour": ["green", "red"]})
    with pytest.warns(UserWarning, match="'green'|missing") as caught:
        values = predictor.predict(frame)
    told = [str(warning.message) for warning in caught]
    assert told[0].startswith("'green' of 'colour' did not occur")
    assert told[1].startswith("1 missing value of 'size', which had none in the training rows")
    assert told == list(predictor.notes(frame))
    assert caught[0].filename == __file__
    filled = torch.tensor([[-0.125, 0.0, 0.0]])  # the median, and neither level
    with torch.no_grad():
        expected = 100.0 + 10.0 * float(predictor.network(filled))
    assert values[0] == pytest.approx(expected, rel=1e-6)
    assert predictor.notes(rows()) == ()


@pytest.mark.exact
def test_a_folder_gives_the_same_predictor(tmp_path: Path) -> None:
    predictor = regression()
    predictor.save(tmp_path / "new", more=1)
    assert json.loads((tmp_path / "new" / "record.json").read_text())["more"] == 1
    loaded = pr.load_run(tmp_path / "new")
    assert loaded.encoder == ENCODER
    np.testing.assert_allclose(loaded.predict(rows()), predictor.predict(rows()), rtol=1e-9)
    np.testing.assert_allclose(
        loaded.predict_interval(rows()), predictor.predict_interval(rows()), rtol=1e-6
    )
    assert not loaded.failed
    Predictor(ENCODER, predictor.network, predictor.noise, True).save(tmp_path / "new")
    assert pr.load_run(tmp_path / "new").failed


@pytest.mark.exact
def test_noise_is_described_as_it_was_fitted() -> None:
    noise = likelihoods.StudentT(4.0, noise_scale=1.0)
    with torch.no_grad():
        noise.log_scale.fill_(-1.0)
        noise.log_excess.fill_(0.5)
    made = likelihoods.build(describe_noise(noise))
    assert isinstance(made, likelihoods.StudentT)
    assert float(made.log_scale.detach()) == pytest.approx(-1.0, rel=1e-6)
    assert float(made.log_excess.detach()) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.contract
def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere has no encoder\.json, network"):
        pr.load_run(tmp_path / "nowhere")
    regression().save(tmp_path / "one")
    record = (tmp_path / "one" / "record.json").read_text()
    for text in ("{", "{}", "[]", record.replace("StudentT", "Levy")):
        (tmp_path / "one" / "record.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"record\.json as 'pyro-relevance table'"):
            pr.load_run(tmp_path / "one")
    (tmp_path / "one" / "record.json").write_text(record)
    Predictor(CLASSES, pruned(1, 2), likelihoods.Categorical()).save(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "encoder.json", tmp_path / "one")
    with pytest.raises(CheckpointError, match=r"of one run in .*one, but the network does not fit"):
        pr.load_run(tmp_path / "one")


@pytest.mark.exact
def test_a_row_is_predicted_alone_as_among_others() -> None:
    predictor = regression()
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"size": generator.normal(size=300), "colour": "red"})
    alone = [predictor.predict(frame[row : row + 1])[0] for row in range(0, 300, 30)]
    np.testing.assert_allclose(predictor.predict(frame)[::30], alone, rtol=1e-13)
