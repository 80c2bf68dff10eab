"""Does the order of a set of operators matter? Table 1 of Xin et al. 2022, with a significance test.

Xin et al. 2022 (section 5.2) compare the distances between curves of one ordering trained with different
seeds with those between curves of different orderings. They find no significance test, because distances
that share a curve are not independent. A permutation test needs no independence: if the order does not
matter, the runs of one seed may swap their labels, and all labellings are equally likely.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.analysis.curves import FloatArray, TradeoffCurve, distance
from pipeops.analysis.pairs import pairs_of_one_seed, pairs_of_other_seeds, without_pairs_of_one_seed
from pipeops.errors import PipeOpsError
from pipeops.pipeline import orderings

MAX_LABELLINGS = 9_999
"""Most labellings to try. Where there are more, this number of random ones is tried."""

_TIE = 1e-9  # percentage points; labellings this close to the measured one differ by rounding alone


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What Table 1 says about one set of operators on one dataset."""

    orderings: tuple[str, ...]
    seeds: tuple[int, ...]
    same: FloatArray
    """Distances in percentage points, shape (pairs,): one ordering, two seeds; pooled over the orderings."""
    different: FloatArray
    """Distances in percentage points, shape (pairs,): two orderings, two seeds."""
    one_seed: FloatArray
    """Distances in percentage points, shape (pairs,): two orderings, one seed, whose runs share a prefix."""
    disjoint: int
    """Number of pairs whose curves share no time; they are in no array."""
    p_value: float
    """Probability of at least this mean(different) - mean(same) if order does not matter; NaN without pairs
    of either kind."""

    @property
    def smallest_p_value(self) -> float:
        """The smallest possible ``p_value`` for these orderings and seeds; NaN with a single seed."""
        return smallest_p_value(num_orderings=len(self.orderings), num_seeds=len(self.seeds))


def compare(curves: Mapping[tuple[str, int], TradeoffCurve]) -> Comparison:
    """Compare the orderings of one set of operators on one dataset.

    Pairs of curves that share no time have no distance. They are left out of the means and, under every
    labelling, of the test, with one warning that counts them.

    Args:
        curves: The curve of every (ordering, seed): each ordering with each seed.

    Raises:
        PipeOpsError: there are fewer than two orderings, or a run is missing.
    """
    orderings = sorted({ordering for ordering, _ in curves})
    seeds = sorted({seed for _, seed in curves})
    if len(orderings) < 2:
        raise PipeOpsError(f"orderings {orderings}: comparing them needs at least two; add the others")
    for run in product(orderings, seeds):
        if run not in curves:
            raise PipeOpsError(f"ordering {run[0]} has no curve for seed {run[1]}; measure it first")

    distances = _distances([[curves[ordering, seed] for seed in seeds] for ordering in orderings])
    same, _ = _pairs(distances)
    different, one_seed = pairs_of_other_seeds(distances), pairs_of_one_seed(distances)
    disjoint = sum(int(np.isnan(pairs).sum()) for pairs in (same, different, one_seed))
    if disjoint:
        pairs = same.size + different.size + one_seed.size
        warnings.warn(
            f"orderings {', '.join(orderings)}: {disjoint} of {pairs} pairs of curves share no time and are "
            "left out",
            stacklevel=2,
        )
    return Comparison(
        orderings=tuple(orderings),
        seeds=tuple(seeds),
        same=same[~np.isnan(same)],
        different=different[~np.isnan(different)],
        one_seed=one_seed[~np.isnan(one_seed)],
        disjoint=disjoint,
        p_value=permutation_p_value(without_pairs_of_one_seed(distances)),
    )


def compare_all(
    runs: Mapping[tuple[str, str, int], TradeoffCurve], operator_sets: Sequence[str]
) -> dict[tuple[str, str], Comparison]:
    """Compare the orderings of every operator set on every dataset, over all seeds.

    Args:
        runs: The curve of every (dataset, ordering, seed); other pipelines in it are ignored.
        operator_sets: The sets, each with at least two orderings.

    Returns:
        The comparison of every (dataset, operators).

    Raises:
        PipeOpsError: a run is missing.
    """
    comparisons = {}
    for dataset in dict.fromkeys(dataset for dataset, _, _ in runs):
        for operators in operator_sets:
            wanted = {str(ordering) for ordering in orderings(operators)}
            comparisons[dataset, operators] = compare(
                {
                    (ordering, seed): curve
                    for (where, ordering, seed), curve in runs.items()
                    if where == dataset and ordering in wanted
                }
            )
    return comparisons


def table1(comparisons: Mapping[tuple[str, str], Comparison]) -> pd.DataFrame:
    """Tabulate the comparisons by (dataset, operators): Table 1 of Xin et al. 2022 in long form.

    Returns:
        Three rows per comparison, in the mapping's order, ``pairs`` being ``same`` and ``different`` (both of
        two seeds) and ``one seed`` (two orderings of one seed, whose runs share a prefix), with the mean and
        the sample SD of the distances in percentage points, their number, and on ``different`` the p-value of
        the difference. NaN where there are too few pairs.
    """
    rows = [
        (dataset, operators, pairs, *_mean_and_sd(distances), distances.size, p_value)
        for (dataset, operators), c in comparisons.items()
        for pairs, distances, p_value in [
            ("same", c.same, math.nan),
            ("different", c.different, c.p_value),
            ("one seed", c.one_seed, math.nan),
        ]
    ]
    return pd.DataFrame(rows, columns=["dataset", "operators", "pairs", "mean", "sd", "n_pairs", "p_value"])


def permutation_p_value(
    distances: FloatArray, *, max_labellings: int = MAX_LABELLINGS, seed: int = 0
) -> float:
    """Test whether curves of different orderings are further apart than those of one ordering.

    One-sided: the share of the labellings under which mean(different) - mean(same) is at least what was
    measured. A labelling permutes the orderings within each seed, as runs of one seed share their first
    steps. One permutation for all seeds changes nothing, so the first seed keeps its labels. All labellings
    are tried, the measured one among them, where there are at most ``max_labellings``; else as many random
    ones of which b reach what was measured, and p = (b + 1) / (max_labellings + 1).

    The level is exact where the runs of a seed share nothing but O. DEP and DPE also share D, and so resemble
    each other more than EDP: p-values of D+P+E come out somewhat too small where the seed matters much.

    Args:
        distances: Shape (orderings, seeds, orderings, seeds), symmetric; NaN where there is no distance.
        max_labellings: The most labellings to try.
        seed: Seed of the random labellings.

    Returns:
        The p-value, or NaN where no pair of the same or none of different orderings has a distance.
    """
    num_orderings, num_seeds = distances.shape[:2]
    identity = np.arange(num_orderings)
    measured = _statistic(distances, np.tile(identity, (1, num_seeds, 1))).item()
    if math.isnan(measured):
        return math.nan
    exact = _num_labellings(num_orderings, num_seeds) <= max_labellings
    if exact:
        choices = product(permutations(range(num_orderings)), repeat=num_seeds - 1)
        labellings = np.array([[tuple(identity), *others] for others in choices])
    else:
        rows = np.tile(identity, (max_labellings, num_seeds, 1))
        labellings = np.random.default_rng(seed).permuted(rows, axis=-1)
    # A labelling that leaves no pair of the same ordering counts against significance, hence not "<".
    reached = int((~(_statistic(distances, labellings) < measured - _TIE)).sum())
    return reached / len(labellings) if exact else (reached + 1) / (max_labellings + 1)


def smallest_p_value(*, num_orderings: int, num_seeds: int) -> float:
    """Return the least p-value that the test can give: one over the number of labellings it tries.

    NaN with a single seed, where there is nothing to test.
    """
    if num_seeds < 2:
        return math.nan
    labellings = _num_labellings(num_orderings, num_seeds)
    return 1 / labellings if labellings <= MAX_LABELLINGS else 1 / (MAX_LABELLINGS + 1)


def _num_labellings(num_orderings: int, num_seeds: int) -> int:
    return math.factorial(num_orderings) ** (num_seeds - 1)


def _distances(curves: list[list[TradeoffCurve]]) -> FloatArray:
    """All distances between ``curves[ordering][seed]``, shape (orderings, seeds, orderings, seeds)."""
    runs = [curve for row in curves for curve in row]
    table = np.zeros((len(runs), len(runs)))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # no common time: the caller counts
        for i, j in combinations(range(len(runs)), 2):
            table[i, j] = table[j, i] = distance(runs[i], runs[j])
    shape = (len(curves), len(curves[0]))
    return table.reshape(*shape, *shape)


def _pairs(distances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Split the distances of all pairs of runs into those of one ordering and those of different ones."""
    num_orderings, num_seeds = distances.shape[:2]
    ordering = np.repeat(np.arange(num_orderings), num_seeds)
    i, j = np.triu_indices(ordering.size, k=1)
    values = distances.reshape(ordering.size, ordering.size)[i, j]
    same = ordering[i] == ordering[j]
    return values[same], values[~same]


def _statistic(distances: FloatArray, labellings: NDArray[np.intp]) -> FloatArray:
    """Mean(different) - mean(same) in percentage points under each labelling; NaN where either has no pair.

    Args:
        distances: Shape (orderings, seeds, orderings, seeds).
        labellings: Shape (labellings, seeds, orderings): the run of a seed that gets each label.
    """
    every = np.concatenate(_pairs(distances))
    # Two runs are of the same ordering where they get the same label: sum those, the rest is different.
    same_sum, same_count = np.zeros(len(labellings)), np.zeros(len(labellings), int)
    for s, t in combinations(range(distances.shape[1]), 2):
        same = distances[labellings[:, s], s, labellings[:, t], t]  # (labellings, orderings)
        same_sum += np.nansum(same, axis=1)
        same_count += (~np.isnan(same)).sum(axis=1)
    different_sum = np.nansum(every) - same_sum
    different_count = (~np.isnan(every)).sum() - same_count
    return _ratio(different_sum, different_count) - _ratio(same_sum, same_count)


def _ratio(total: FloatArray, count: NDArray[np.intp]) -> FloatArray:
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _mean_and_sd(distances: FloatArray) -> tuple[float, float]:
    mean = float(distances.mean()) if distances.size else math.nan
    return mean, float(distances.std(ddof=1)) if distances.size > 1 else math.nan
