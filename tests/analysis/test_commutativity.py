import math
import warnings
from collections.abc import Sequence
from itertools import combinations, permutations, product

import numpy as np
import pytest
from helpers import flat
from scipy import stats

from pipeops.analysis.commutativity import (
    compare,
    permutation_p_value,
    smallest_p_value,
    table1,
)
from pipeops.analysis.curves import FloatArray, TradeoffCurve
from pipeops.analysis.tables import table1_markdown
from pipeops.errors import PipeOpsError

Curves = dict[tuple[str, int], TradeoffCurve]
ORDERINGS = {"DE": ["DE", "ED"], "PE": ["EP", "PE"], "DPE": ["DEP", "DPE", "EDP"]}


def random_curves(rng: np.random.Generator, operators: str, *, seeds: int, effect: float = 0) -> Curves:
    """Rising curves with noise in every point and between the seeds; ordering i is shifted by i * effect."""
    curves = {}
    for seed in range(seeds):
        of_the_seed = rng.normal(scale=0.005)
        for place, ordering in enumerate(ORDERINGS[operators]):
            time = np.array([0, *np.sort(rng.uniform(size=3)), 1])
            noise = rng.standard_t(3, size=5) * 0.005
            accuracy = 0.7 + 0.1 * np.sqrt(time) + of_the_seed + place * effect + noise
            curves[ordering, seed] = TradeoffCurve(time, accuracy)
    return curves


def random_distances(
    rng: np.random.Generator, *, orderings: int, seeds: int, missing: float = 0
) -> FloatArray:
    values = rng.uniform(size=(orderings * seeds,) * 2)
    values[rng.uniform(size=values.shape) < missing] = np.nan
    return (values + values.T).reshape(orderings, seeds, orderings, seeds)


def p_value_by_brute_force(distances: FloatArray) -> float:
    """Relabel the runs of every seed, the first too, and average the pairs of each kind anew."""
    num_orderings, num_seeds = distances.shape[:2]
    runs = list(product(range(num_orderings), range(num_seeds)))

    def statistic(labels: Sequence[Sequence[int]]) -> float:
        pairs: dict[bool, list[float]] = {True: [], False: []}
        for (i, s), (j, t) in combinations(runs, 2):
            if not math.isnan(distances[i, s, j, t]):
                pairs[labels[s][i] == labels[t][j]].append(distances[i, s, j, t])
        return float(np.mean(pairs[False]) - np.mean(pairs[True])) if all(pairs.values()) else math.inf

    measured = statistic([range(num_orderings)] * num_seeds)
    every = [statistic(labels) for labels in product(permutations(range(num_orderings)), repeat=num_seeds)]
    return float(np.mean([value >= measured - 1e-9 for value in every]))


def test_figures_by_hand() -> None:
    result = compare(flat({"DE": [80, 81], "ED": [84, 82]}))
    np.testing.assert_allclose(np.sort(result.same), [1, 2])
    np.testing.assert_allclose(np.sort(result.different), [2, 3])
    np.testing.assert_allclose(np.sort(result.one_seed), [1, 4])
    # The other labelling swaps the second seed: same is 2 and 3, different is 1, 1, 2 and 4, so -0.5 < 1.
    assert result.p_value == 0.5
    assert result.smallest_p_value == 0.5

    table = table1({("sst2", "DE"): result})
    assert table.columns.tolist() == ["dataset", "operators", "pairs", "mean", "sd", "n_pairs", "p_value"]
    assert table[["dataset", "operators", "pairs", "n_pairs"]].to_numpy().tolist() == [
        ["sst2", "DE", "same", 2],
        ["sst2", "DE", "different", 2],
        ["sst2", "DE", "one seed", 2],
    ]
    np.testing.assert_allclose(table["mean"], [1.5, 2.5, 2.5])
    np.testing.assert_allclose(table["sd"], [math.sqrt(1 / 2), math.sqrt(1 / 2), math.sqrt(9 / 2)])
    np.testing.assert_array_equal(table["p_value"], [np.nan, 0.5, np.nan])


def test_pairs_are_counted_over_all_orderings_and_seeds() -> None:
    result = compare(random_curves(np.random.default_rng(0), "DPE", seeds=5))
    assert result.same.size == 3 * (5 * 4 // 2)
    assert result.different.size == 3 * 5 * 4
    assert result.one_seed.size == 3 * 5
    assert (result.orderings, result.seeds) == (("DEP", "DPE", "EDP"), (0, 1, 2, 3, 4))


@pytest.mark.parametrize(("orderings", "seeds"), [(2, 2), (2, 5), (3, 2), (3, 3)])
@pytest.mark.parametrize("missing", [0, 0.2])
def test_exact_p_value_equals_brute_force(orderings: int, seeds: int, missing: float) -> None:
    rng = np.random.default_rng(orderings + 10 * seeds)
    for _ in range(5):
        distances = random_distances(rng, orderings=orderings, seeds=seeds, missing=missing)
        if not math.isnan(p_value := permutation_p_value(distances)):
            assert p_value == pytest.approx(p_value_by_brute_force(distances), abs=1e-12)


@pytest.mark.parametrize(("operators", "seeds"), [("DE", 4), ("DPE", 2)])
def test_p_values_are_uniform_if_the_order_does_not_matter(operators: str, seeds: int) -> None:
    rng = np.random.default_rng(1)
    p_values = [compare(random_curves(rng, operators, seeds=seeds)).p_value for _ in range(600)]
    steps = round(1 / smallest_p_value(num_orderings=len(ORDERINGS[operators]), num_seeds=seeds))
    rank = np.round(np.array(p_values) * steps).astype(int)
    np.testing.assert_allclose(rank / steps, p_values)
    assert stats.chisquare(np.bincount(rank, minlength=steps + 1)[1:]).pvalue > 0.05


@pytest.mark.parametrize(("operators", "seeds"), [("DE", 6), ("DPE", 3)])
def test_p_values_are_small_if_the_order_matters(operators: str, seeds: int) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        result = compare(random_curves(rng, operators, seeds=seeds, effect=0.1))
        assert result.p_value == result.smallest_p_value < 0.05


def test_random_labellings_agree_with_all_of_them() -> None:
    rng = np.random.default_rng(3)
    for _ in range(3):
        distances = random_distances(rng, orderings=3, seeds=7)
        exact = permutation_p_value(distances, max_labellings=6**6)
        sampled = permutation_p_value(distances)
        assert sampled == permutation_p_value(distances)
        assert sampled != permutation_p_value(distances, seed=1)
        assert sampled == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / 9_999))


def test_random_labellings_count_the_measured_one() -> None:
    curves = random_curves(np.random.default_rng(4), "DPE", seeds=7, effect=0.1)
    assert compare(curves).p_value == smallest_p_value(num_orderings=3, num_seeds=7) == 1 / 10_000


@pytest.mark.parametrize(
    ("orderings", "seeds", "expected"),
    [(2, 1, math.nan), (2, 2, 1 / 2), (2, 5, 1 / 16), (3, 3, 1 / 36), (3, 6, 1 / 7776), (3, 7, 1 / 10_000)],
)
def test_smallest_p_value(orderings: int, seeds: int, expected: float) -> None:
    np.testing.assert_equal(smallest_p_value(num_orderings=orderings, num_seeds=seeds), expected)


def test_names_of_orderings_and_seeds_do_not_matter() -> None:
    curves = random_curves(np.random.default_rng(5), "DPE", seeds=3)
    expected = compare(curves)
    for names in permutations(ORDERINGS["DPE"]):
        for seeds in permutations([7, 1, 42]):
            new_name = dict(zip(ORDERINGS["DPE"], names, strict=True))
            renamed = {(new_name[name], seeds[seed]): curve for (name, seed), curve in curves.items()}
            result = compare(renamed)
            assert result.p_value == expected.p_value
            np.testing.assert_allclose(np.sort(result.same), np.sort(expected.same))
            np.testing.assert_allclose(np.sort(result.different), np.sort(expected.different))


def test_labellings_that_tie_with_the_measured_one_count() -> None:
    assert compare(flat({"DE": [80, 80, 80], "ED": [80, 80, 80]})).p_value == 1
    # Only the third seed tells the orderings apart, so two of the four labellings are the measured one.
    assert compare(flat({"DE": [80, 85, 70], "ED": [90, 85, 90]})).p_value == 0.5


def test_pairs_that_share_no_time_are_left_out() -> None:
    curves = flat({"DE": [80, 81, 80.5], "ED": [84, 82, 85]})
    curves["ED", 2] = TradeoffCurve(np.array([2.0, 3.0]), np.array([0.5, 0.5]))
    with pytest.warns(UserWarning, match="orderings DE, ED: 5 of 15 pairs of curves share no time") as caught:
        result = compare(curves)
    assert len(caught) == 1
    np.testing.assert_allclose(np.sort(result.same), [0.5, 0.5, 1, 2])
    np.testing.assert_allclose(np.sort(result.different), [1.5, 2, 3, 3.5])
    np.testing.assert_allclose(np.sort(result.one_seed), [1, 4])
    assert result.disjoint == 5
    assert 0 < result.p_value <= 1
    assert "D+E on SST-2: 5 pairs of curves share no time" in table1_markdown({("sst2", "DE"): result})


def test_curves_without_any_common_time_have_no_figures() -> None:
    curves = {
        run: TradeoffCurve(np.array([time]), np.array([0.5]))
        for time, run in enumerate(product(["DE", "ED"], [1, 2]))
    }
    with pytest.warns(UserWarning, match="6 of 6 pairs"):
        table = table1({("sst2", "DE"): compare(curves)})
    assert table["n_pairs"].tolist() == [0, 0, 0]
    assert table[["mean", "sd", "p_value"]].isna().all(axis=None)


def test_one_seed_has_different_orders_but_no_test() -> None:
    result = compare(flat({"DE": [80], "ED": [84]}))
    assert math.isnan(result.p_value)
    assert math.isnan(result.smallest_p_value)
    table = table1({("sst2", "DE"): result})
    expected = [[np.nan, np.nan, 0], [np.nan, np.nan, 0], [4, np.nan, 1]]
    np.testing.assert_allclose(table[["mean", "sd", "n_pairs"]], expected)
    assert "D+E: one seed gives no pairs of one ordering" in table1_markdown({("sst2", "DE"): result})


def test_comparing_needs_two_orderings_and_every_run() -> None:
    with pytest.raises(PipeOpsError, match="comparing them needs at least two"):
        compare(flat({"DE": [80, 81]}))
    curves = flat({"DE": [80, 81], "ED": [84, 82]})
    del curves["ED", 1]
    with pytest.raises(PipeOpsError, match="ordering ED has no curve for seed 1; measure it first"):
        compare(curves)


def test_no_warning_escapes_where_every_figure_exists() -> None:
    with warnings.catch_warnings(action="error"):
        table1_markdown({("sst2", "DE"): compare(random_curves(np.random.default_rng(6), "DE", seeds=2))})
