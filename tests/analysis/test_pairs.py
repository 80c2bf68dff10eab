import math
from itertools import combinations, permutations, product

import numpy as np
import pytest
from scipy import stats

from pipeops.analysis.commutativity import permutation_p_value
from pipeops.analysis.curves import FloatArray
from pipeops.analysis.pairs import pairs_of_one_seed, pairs_of_other_seeds, without_pairs_of_one_seed


def random_distances(
    rng: np.random.Generator, *, orderings: int, seeds: int, missing: float = 0
) -> FloatArray:
    values = rng.uniform(size=(orderings * seeds,) * 2)
    values[rng.uniform(size=values.shape) < missing] = np.nan
    return (values + values.T).reshape(orderings, seeds, orderings, seeds)


def distances_of(accuracies: FloatArray) -> FloatArray:
    """Distances of flat curves, from the accuracy of every (ordering, seed)."""
    runs = accuracies.ravel()
    return np.abs(runs[:, np.newaxis] - runs).reshape(accuracies.shape * 2)


def p_value_by_brute_force(distances: FloatArray) -> float:
    """Relabel the runs of every seed and average the pairs of each kind anew; no pair is of one seed."""
    num_orderings, num_seeds = distances.shape[:2]
    runs = list(product(range(num_orderings), range(num_seeds)))

    def statistic(labels: tuple[tuple[int, ...], ...]) -> float:
        pairs: dict[bool, list[float]] = {True: [], False: []}
        for (i, s), (j, t) in combinations(runs, 2):
            if s != t and not math.isnan(distances[i, s, j, t]):
                pairs[labels[s][i] == labels[t][j]].append(distances[i, s, j, t])
        return float(np.mean(pairs[False]) - np.mean(pairs[True])) if all(pairs.values()) else math.inf

    measured = statistic((tuple(range(num_orderings)),) * num_seeds)
    every = [statistic(labels) for labels in product(permutations(range(num_orderings)), repeat=num_seeds)]
    return float(np.mean([value >= measured - 1e-9 for value in every]))


def test_pairs_by_hand() -> None:
    distances = distances_of(np.array([[80.0, 81.0], [84.0, 82.5]]))
    np.testing.assert_allclose(np.sort(pairs_of_one_seed(distances)), [1.5, 4])
    np.testing.assert_allclose(np.sort(pairs_of_other_seeds(distances)), [2.5, 3])
    assert pairs_of_other_seeds(distances[:, :1, :, :1]).size == 0


def test_every_pair_is_counted_once() -> None:
    distances = random_distances(np.random.default_rng(0), orderings=3, seeds=5)
    one, other = pairs_of_one_seed(distances), pairs_of_other_seeds(distances)
    assert (one.size, other.size) == (3 * 5, 3 * 5 * 4)
    masked = without_pairs_of_one_seed(distances)
    assert np.isnan(masked).sum() == 2 * one.size
    np.testing.assert_array_equal(pairs_of_other_seeds(masked), other)
    diagonal = [0, 1, 2]
    np.testing.assert_array_equal(masked[diagonal, :, diagonal], distances[diagonal, :, diagonal])


@pytest.mark.parametrize(("orderings", "seeds"), [(2, 2), (2, 5), (3, 3)])
@pytest.mark.parametrize("missing", [0, 0.2])
def test_the_p_value_equals_brute_force(orderings: int, seeds: int, missing: float) -> None:
    rng = np.random.default_rng(orderings + 10 * seeds)
    for _ in range(4):
        distances = random_distances(rng, orderings=orderings, seeds=seeds, missing=missing)
        p_value = permutation_p_value(without_pairs_of_one_seed(distances))
        if not math.isnan(p_value):
            assert p_value == pytest.approx(p_value_by_brute_force(distances), abs=1e-12)


@pytest.mark.parametrize(("orderings", "seeds"), [(2, 6), (3, 4), (3, 7)])
def test_pairs_of_one_seed_have_no_say_in_the_p_value(orderings: int, seeds: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        distances = random_distances(rng, orderings=orderings, seeds=seeds)
        assert permutation_p_value(without_pairs_of_one_seed(distances)) == permutation_p_value(distances)


def test_p_values_are_uniform_where_runs_of_a_seed_are_alike() -> None:
    rng = np.random.default_rng(2)
    ranks = []
    for _ in range(800):
        # Points in space rather than on a line, where many labellings tie.
        runs = rng.normal(scale=2, size=(1, 4, 3)) + rng.standard_t(3, size=(2, 4, 3))
        distances = np.linalg.norm(runs[:, :, np.newaxis, np.newaxis] - runs, axis=-1)
        distances[rng.uniform(size=distances.shape) < 0.05] = np.nan
        distances = distances + distances.transpose(2, 3, 0, 1)  # symmetric in what is missing too
        ranks.append(permutation_p_value(without_pairs_of_one_seed(distances)) * 8)
    counts = np.bincount(np.round(ranks).astype(int), minlength=9)[1:]
    assert stats.chisquare(counts).pvalue > 0.01


def test_without_an_effect_diff_equals_same_only_over_other_seeds() -> None:
    """The reason for leaving them out: pairs of one seed are closer where the seed matters."""
    rng = np.random.default_rng(3)
    same, other, one = [], [], []
    for _ in range(400):
        distances = distances_of(rng.normal(scale=2, size=(1, 6)) + rng.normal(scale=0.5, size=(2, 6)))
        same.append(np.mean([distances[i, s, i, t] for i in range(2) for s, t in combinations(range(6), 2)]))
        other.append(pairs_of_other_seeds(distances).mean())
        one.append(pairs_of_one_seed(distances).mean())
    assert np.mean(other) == pytest.approx(np.mean(same), rel=0.01)
    assert np.mean(one) < 0.5 * np.mean(same)
