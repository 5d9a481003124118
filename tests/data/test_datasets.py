from __future__ import annotations

import hashlib
import math
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pyro_relevance.data.datasets import UCI_NAMES, boston, friedman_like, standard_splits, uci
from pyro_relevance.errors import DataError

DATA = Path(__file__).resolve().parents[2] / "data"


def test_checksum_of_boston_is_the_recorded_one() -> None:
    digest = hashlib.sha256((DATA / "boston.csv").read_bytes()).hexdigest()
    assert digest == "79ac716620024011b03c0c44d2bf99069b8173649181926d9109c25475a3804c"
    assert digest in (DATA / "README.md").read_text(encoding="utf-8")


def test_boston() -> None:
    table = boston()
    assert table.task == "regression"
    assert table.target_name == "MEDV"
    assert table.notes == ()
    assert ",".join(table.features.columns) == (
        "CRIM,ZN,INDUS,CHAS,NOX,RM,AGE,DIS,RAD,TAX,PTRATIO,B,LSTAT"
    )
    assert table.features.shape == (506, 13)
    assert table.features.iloc[0].tolist() == [
        0.00632, 18, 2.31, 0, 0.538, 6.575, 65.2, 4.09, 1, 296, 15.3, 396.9, 4.98,
    ]  # fmt: skip
    assert table.target.mean() == pytest.approx(22.532806)


def test_boston_of_an_installation_and_of_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = boston().target.tolist()
    (tmp_path / "boston.csv").write_bytes((DATA / "boston.csv").read_bytes())
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    table = boston()
    assert table.path == tmp_path / "boston.csv"
    assert table.target.tolist() == expected
    (tmp_path / "boston.csv").unlink()
    assert boston().path == DATA / "boston.csv"

    def no_package(package: str) -> Path:
        raise ModuleNotFoundError(package)

    monkeypatch.setattr(resources, "files", no_package)
    assert boston().path == DATA / "boston.csv"


def test_uci_boston_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRO_RELEVANCE_DATA", raising=False)
    x, y = uci("boston")
    assert x.shape == (506, 13)
    assert y.shape == (506,)
    assert x.dtype == y.dtype == np.float64


def write_set(root: Path, file: str, rows: int, columns: int) -> NDArray[np.float64]:
    values = np.random.default_rng(0).normal(size=(rows, columns))
    (root / "uci").mkdir(exist_ok=True)
    np.savetxt(root / "uci" / file, values, delimiter="\t")
    return values


def test_uci_reads_file_and_target_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = write_set(tmp_path, "energy.txt", 768, 9)
    x, y = uci("energy", tmp_path)
    np.testing.assert_array_equal(x, values[:, :8])
    np.testing.assert_array_equal(y, values[:, 8])
    values = write_set(tmp_path, "naval-propulsion-plant.txt", 11934, 18)
    monkeypatch.setenv("PYRO_RELEVANCE_DATA", str(tmp_path))
    x, y = uci("naval")
    np.testing.assert_array_equal(x, values[:, :16])
    np.testing.assert_array_equal(y, values[:, 16])


def test_uci_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRO_RELEVANCE_DATA", raising=False)
    with pytest.raises(ValueError, match="Expected a name among boston, concrete, .*got 'iris'"):
        uci("iris", tmp_path)
    with pytest.raises(DataError, match="Pass root=, or set the environment variable PYRO_RELEV"):
        uci("yacht")
    path = re.escape(str(tmp_path / "uci" / "yacht.txt"))
    with pytest.raises(DataError, match=f"Expected the data set 'yacht' at {path}, but found no"):
        uci("yacht", tmp_path)
    with pytest.raises(DataError, match="Take UCI_Datasets/wine-quality-red/data/data.txt from"):
        uci("wine", tmp_path)
    write_set(tmp_path, "yacht.txt", 300, 7)
    with pytest.raises(DataError, match="Expected 308 rows and 7 columns in .* got 300 and 7"):
        uci("yacht", tmp_path)
    (tmp_path / "uci" / "yacht.txt").write_text("1 2 three\n")
    with pytest.raises(DataError, match="Expected only numbers in"):
        uci("yacht", tmp_path)


def test_uci_names() -> None:
    assert UCI_NAMES == (
        "boston", "concrete", "energy", "kin8nm", "naval", "power", "protein", "wine", "yacht",
    )  # fmt: skip


@pytest.mark.parametrize("num_rows", [308, 506, 1030, 1599])
def test_standard_splits_follow_the_protocol(num_rows: int) -> None:
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    splits = standard_splits(num_rows)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert after["state"]["key"].tolist() == state["state"]["key"].tolist()
    assert len(splits) == 20
    try:
        np.random.seed(1)  # noqa: NPY002
        for train, test in splits:
            order = np.random.choice(range(num_rows), num_rows, replace=False)  # noqa: NPY002
            num_train = int(round(0.9 * num_rows))
            assert train.tolist() == order[:num_train].tolist()
            assert test.tolist() == order[num_train:].tolist()
    finally:
        np.random.set_state(state)  # noqa: NPY002
    five = standard_splits(num_rows, 5)
    assert [test.tolist() for _, test in five] == [test.tolist() for _, test in splits[:5]]


def test_standard_splits_of_boston_are_pinned() -> None:
    train, test = standard_splits(506)[0]
    assert (len(train), len(test)) == (455, 51)
    assert train[:5].tolist() == [307, 343, 47, 67, 362]


def test_standard_splits_refuse() -> None:
    with pytest.raises(ValueError, match="Expected at least 2 rows and 1 split, but got 1 and 20"):
        standard_splits(1)


def test_friedman_like() -> None:
    x, y, relevant = friedman_like(4000, seed=2)
    assert x.shape == (4000, 100)
    assert y.shape == (4000,)
    assert relevant.dtype == np.bool_
    assert relevant.sum() == 10
    assert relevant.reshape(10, 10).sum(axis=1).tolist() == [1] * 10
    correlation = np.corrcoef(x.T)
    bound = 5 / np.sqrt(4000)
    assert isinstance(correlation, np.ndarray)
    np.testing.assert_allclose(correlation[0, :10], 0.5 ** np.arange(10), atol=bound)
    np.testing.assert_allclose(correlation[9, 10:], 0, atol=bound)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=bound)


def test_friedman_like_repeats_and_differs_by_seed() -> None:
    first, second, other = friedman_like(50), friedman_like(50), friedman_like(50, seed=1)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).any()
    assert (first[2] != other[2]).any()


def test_only_relevant_inputs_of_friedman_like_explain_the_target() -> None:
    num_rows = 4000
    x, y, relevant = friedman_like(num_rows, noise=0.0)
    y = y - y.mean()

    def residual(target: NDArray[np.float64], inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        design = np.concatenate(
            [np.ones((num_rows, 1)), *(inputs**power for power in (1, 2, 3))], 1
        )
        solution: NDArray[np.float64] = np.linalg.lstsq(design, target, rcond=None)[0]
        return target - design @ solution

    def expected_share(regressors: int) -> float:
        """Share of pure noise that so many regressors explain, 5 standard errors included."""
        return (regressors + 5 * math.sqrt(2 * regressors)) / num_rows

    rest = residual(y, x[:, relevant])
    assert 1 - residual(rest, x[:, ~relevant]).var() / rest.var() < expected_share(3 * 90)
    for column in np.flatnonzero(relevant):
        without = x[:, [other for other in np.flatnonzero(relevant) if other != column]]
        assert 1 - rest.var() / residual(y, without).var() > expected_share(3)


def test_friedman_like_has_ten_or_more_relevant_inputs_at_will() -> None:
    assert friedman_like(10, num_inputs=7, num_relevant=5)[2].sum() == 5
    assert friedman_like(10, num_inputs=15, num_relevant=15)[2].all()


@pytest.mark.parametrize(
    "options",
    [{"num_relevant": 7}, {"num_inputs": 5}, {"num_relevant": 0}, {"num_rows": 0}],
)
def test_friedman_like_refuses_sizes(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a multiple of 5 and at most num_inputs"):
        friedman_like(**options)


@pytest.mark.parametrize("options", [{"correlation": 1.0}, {"noise": -1.0}])
def test_friedman_like_refuses_parameters(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"Expected correlation in \(-1, 1\) and noise >= 0"):
        friedman_like(**options)  # type: ignore[arg-type]
