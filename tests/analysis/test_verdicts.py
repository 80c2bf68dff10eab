import io
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeops.analysis.curves import TradeoffCurve
from pipeops.analysis.replays import Run
from pipeops.analysis.verdicts import (
    COLUMNS,
    MANY_SEEDS,
    Verdict,
    cell_p_values,
    commutativity,
    decide,
    estimate,
    holm,
    mean_difference,
    priced_twice,
    same_ordering,
    seeds_needed,
    sentences,
)
from pipeops.errors import PipeOpsError

Curves = dict[Run, TradeoffCurve]
# Grid points, so that curves often share knots, repeat times, touch in one point or miss each other.
TIMES = st.integers(0, 12).map(lambda tick: tick / 4)
POINTS = st.lists(st.tuples(TIMES, st.floats(0, 1)), min_size=1, max_size=8)
CURVES = POINTS.map(lambda points: TradeoffCurve(*np.array(points).T))


def flat(accuracies: Mapping[str, Sequence[float]], *, dataset: str = "sst2") -> Curves:
    """Flat curves from an accuracy in percent per ordering and seed: their difference is that of these."""
    return {
        (dataset, ordering, seed): TradeoffCurve(np.array([0.1, 1.0]), np.full(2, accuracy / 100))
        for ordering, row in accuracies.items()
        for seed, accuracy in enumerate(row)
    }


def apart(*differences: float, first: str = "DE", second: str = "ED", dataset: str = "sst2") -> Curves:
    """Two orderings that differ by so many points, a value per seed."""
    return flat({first: [80 + d for d in differences], second: [80 for _ in differences]}, dataset=dataset)


def words(runs: Curves, *sets: str, margin: float = 2.0) -> list[str]:
    return sentences(commutativity(runs, sets or ["DE"], margin=margin))


@given(CURVES, CURVES)
def test_the_mean_difference_equals_numerical_integration(a: TradeoffCurve, b: TradeoffCurve) -> None:
    start, end = max(a.time[0], b.time[0]), min(a.time[-1], b.time[-1])
    if start > end:
        with pytest.warns(UserWarning, match="share no time"):
            assert math.isnan(mean_difference(a, b))
        return
    # The midpoint rule is exact on a grid whose cells hold no knot.
    cells = np.arange(start, end, 1 / 16) + 1 / 32
    grid = cells if cells.size else np.array([start])
    assert mean_difference(a, b) == pytest.approx(100 * (a.at(grid) - b.at(grid)).mean(), abs=1e-9)
    assert mean_difference(b, a) == pytest.approx(-mean_difference(a, b), abs=1e-9)


def test_the_mean_difference_by_hand() -> None:
    rising = TradeoffCurve(np.array([0.0, 2.0]), np.array([0.5, 0.9]))
    level = TradeoffCurve(np.array([1.0, 3.0]), np.array([0.6, 0.6]))
    assert mean_difference(rising, level) == pytest.approx(20)  # from 0.7 to 0.9, less 0.6
    assert mean_difference(level, rising) == pytest.approx(-20)
    crossing = TradeoffCurve(np.array([0.0, 2.0]), np.array([0.9, 0.5]))
    assert mean_difference(rising, crossing) == pytest.approx(0, abs=1e-12)
    point = TradeoffCurve(np.array([2.0]), np.array([0.8]))
    assert mean_difference(rising, point) == pytest.approx(10)


def test_the_estimate_equals_the_t_tests_of_scipy() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, size=(50, 6))
    got = estimate(values, margin=1.5)
    for i, row in enumerate(values):
        above = stats.ttest_1samp(row, -1.5, alternative="greater").pvalue
        below = stats.ttest_1samp(row, 1.5, alternative="less").pvalue
        assert got.p_equivalent[i] == pytest.approx(max(above, below))
        interval = stats.ttest_1samp(row, 0).confidence_interval(0.9)
        assert (got.low[i], got.high[i]) == pytest.approx(tuple(interval))
        assert (got.p_equivalent[i] <= 0.05) == (got.low[i] >= -1.5 and got.high[i] <= 1.5)
        if got.p_matters[i] <= 0.05:
            assert got.low[i] > 1.5 or got.high[i] < -1.5


def test_p_matters_becomes_the_two_sided_t_test_as_the_margin_vanishes() -> None:
    values = np.random.default_rng(1).normal(0.5, 1, size=6)
    expected = stats.ttest_1samp(values, 0).pvalue
    assert estimate(values, margin=1e-12).p_matters == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "expected"), [(1.0, Verdict.COMMUTE), (-3.0, Verdict.MATTERS), (2.0, Verdict.UNDECIDED)]
)
def test_differences_without_any_spread_are_decided(value: float, expected: Verdict) -> None:
    got = estimate(np.full(5, value))
    assert (got.low, got.high, got.sd) == (value, value, 0)
    assert decide(float(got.p_equivalent), float(got.p_matters)) == expected


def test_holm_by_hand() -> None:
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not be below the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, np.nan, 0.02]), [0.6, np.nan, 0.04])
    np.testing.assert_allclose(holm([[0.7, 0.8], [0.02, 0.01]]), [[1, 1], [0.02, 0.02]])
    assert holm([]).size == 0
    assert np.isnan(holm([np.nan])).all()


def test_the_p_values_of_a_cell_by_hand() -> None:
    equivalent, matters = cell_p_values(
        [[0.01, 0.04, 0.02], [0.9, 0.1, 0.2]], [[0.99, 0.97, 0.9], [0.01, 1, 1]]
    )
    np.testing.assert_allclose(equivalent, [0.04, 0.9])
    np.testing.assert_allclose(matters, [1, 0.03])
    equivalent, matters = cell_p_values([0.01, np.nan], [0.9, np.nan])
    assert np.isnan(equivalent)
    assert matters == 0.9


@pytest.mark.parametrize(("mean", "sd"), [(0.5, 1.5), (1.5, 1.0), (-2.6, 0.9), (3.5, 2.5)])
def test_so_many_seeds_more_decide_and_one_fewer_does_not(mean: float, sd: float) -> None:
    n = 4
    pattern = np.array([1.0, -1, 1, -1])  # a sample of any even size with the wanted mean and SD
    for size in range(n, n + MANY_SEEDS, 2):
        values = np.resize(pattern, size)
        got = estimate(mean + sd * values / values.std(ddof=1))
        decided = decide(float(got.p_equivalent), float(got.p_matters)) != Verdict.UNDECIDED
        assert decided == (size - n >= min(seeds_needed(mean, sd, n)))


def test_a_difference_as_large_as_the_margin_is_never_decided() -> None:
    assert seeds_needed(2.0, 0.5, 6) == (math.inf, math.inf)
    assert "more than 30 more seeds" in words(apart(1.5, 2.5, 1.5, 2.5))[0]


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            (-0.8, 0.5, -0.3, 0.4, -0.6, -0.4),
            "D+E on SST-2: the order does not matter, within 2 points (90% interval -0.6 to +0.2)",
        ),
        (
            (0.5, 0.6, 0.7, 0.6, 0.5, 0.7),
            "D+E on SST-2: the order does not matter, within 2 points, though DE is 0.6 points ahead of ED "
            "(0.5 to 0.7)",
        ),
        (
            (4.0, 5.0, 6.0, 4.2, 4.8, 4.8),
            "D+E on SST-2: the order matters: DE is 4.8 points ahead of ED (4.2 to 5.4)",
        ),
        (
            (-4.0, -5.0, -6.0, -4.2, -4.8, -4.8),
            "D+E on SST-2: the order matters: ED is 4.8 points ahead of DE (4.2 to 5.4)",
        ),
        ((-2.0, 3.0, 1.0, 2.0, -0.5), "D+E on SST-2: undecided (-1.2 to +2.6; about 4 more seeds)"),
        (
            (1.0, 2.5, 1.2, 2.4, 1.0),
            "D+E on SST-2: undecided: DE is 1.6 points ahead of ED (0.9 to 2.3), which may be more or less "
            "than 2 points; about 8 more seeds",
        ),
        ((1.2,), "D+E on SST-2: one seed: no verdict (DE is 1.2 points ahead of ED)"),
    ],
)
def test_planted_cases_in_words(differences: Sequence[float], expected: str) -> None:
    assert words(apart(*differences)) == [expected]


def test_an_interval_shows_on_which_side_of_the_margin_it_ends() -> None:
    differences = (0.5, 1.9, 0.7, 1.5)
    assert (
        "does not matter, within 2 points, though DE is 1.1 points ahead of ED (0.4 to 1.9)"
        in (words(apart(*differences))[0])
    )
    [undecided] = words(apart(*differences), margin=1.92)
    assert "undecided: DE is 1.15 points ahead of ED (0.37 to 1.93), which may be" in undecided


def test_a_table_of_flat_curves_by_hand() -> None:
    table = commutativity(apart(1, 2, 3), ["DE"])
    assert table.columns.tolist() == COLUMNS
    [row] = table.to_dict("records")
    half = stats.t.ppf(0.95, 2) / math.sqrt(3)
    expected = {
        "dataset": "sst2",
        "operators": "DE",
        "first": "DE",
        "second": "ED",
        "n_seeds": 3,
        "mean_difference": 2,
        "sd": 1,
        "low": 2 - half,
        "high": 2 + half,
        "full_depth_difference": 2,
        "full_depth_sd": 1,
        "full_depth_low": 2 - half,
        "full_depth_verdict": "undecided",
        "max_difference": 2,
        "shared_time": 1,
        "verdict": "undecided",
        "cell_verdict": "undecided",
        # DE: |1 - 2|, |1 - 3|, |2 - 3| with mean 4/3; ED: 0.
        "same_ordering": 2 / 3,
        "n_cells": 1,
        "margin": 2,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row["named"]
    assert math.isnan(row["priced_twice"])
    assert math.isnan(row["bootstrap_low"])


def test_the_measures_differ_where_curves_do() -> None:
    """The mean difference is over shared times alone, full depth is each curve's own last point."""
    curves: Curves = {}
    for seed in range(3):
        curves["sst2", "DE", seed] = TradeoffCurve(np.array([0.0, 1.0]), np.array([0.80, 0.90]))
        curves["sst2", "ED", seed] = TradeoffCurve(np.array([0.5, 1.5]), np.array([0.85, 0.85]))
    row = commutativity(curves, ["DE"]).iloc[0]
    assert row["mean_difference"] == pytest.approx(2.5)
    assert row["full_depth_difference"] == pytest.approx(5)
    assert row["max_difference"] == pytest.approx(5)
    assert row["shared_time"] == pytest.approx(1 / 3)


def three_orders(dep: float, dpe: float, edp: float, *, spread: float = 0.2) -> Curves:
    noise = np.array([1.0, -1, 1, -1, 0.5, -0.5]) * spread
    return flat({"DEP": 80 + dep + noise, "DPE": np.full(6, 80 + dpe), "EDP": 80 + edp - noise})


@pytest.mark.parametrize(
    ("orders", "verdict", "expected"),
    [
        ((0.0, 0.1, 0.3), Verdict.COMMUTE, "within 2 points (DEP and EDP differ most: 90% interval"),
        ((0.0, 0.1, 4.0), Verdict.MATTERS, "the order matters: EDP is 3.9 points ahead of DPE"),
        ((0.0, 4.0, 3.9), Verdict.MATTERS, "the order matters: DPE is 4.0 points ahead of DEP"),
        ((0.0, 0.1, 2.0), Verdict.UNDECIDED, "undecided: EDP is 2.0 points ahead of DEP"),
    ],
)
def test_one_sentence_for_three_orders(
    orders: tuple[float, float, float], verdict: Verdict, expected: str
) -> None:
    table = commutativity(three_orders(*orders), ["DPE"])
    assert table[["first", "second"]].to_numpy().tolist() == [["DEP", "DPE"], ["DEP", "EDP"], ["DPE", "EDP"]]
    assert (table["cell_verdict"] == verdict).all()
    assert table["named"].sum() == 1
    [text] = sentences(table)
    assert text.startswith("D+P+E on SST-2: ")
    assert expected in text


def test_three_orders_commute_only_if_every_pair_does() -> None:
    table = commutativity(three_orders(0.0, 0.8, 1.6, spread=0.5), ["DPE"])
    by_pair = table.set_index(["first", "second"])["verdict"]
    assert by_pair["DEP", "DPE"] == by_pair["DPE", "EDP"] == "commute"
    assert by_pair["DEP", "EDP"] == "undecided"
    assert (table["cell_verdict"] == "undecided").all()
    assert (table["cell_more_seeds"] > 0).all()


def test_holm_over_the_cells_can_leave_a_cell_undecided() -> None:
    datasets = ["mrpc", "sst2", "qnli", "qqp"]
    edge = [-0.3, 2.2, 0.4, 1.5, 0.1, 1.1]
    alone = commutativity(apart(*edge, dataset="mrpc"), ["DE"])
    assert alone["cell_verdict"].tolist() == ["commute"]
    runs = {run: curve for name in datasets for run, curve in apart(*edge, dataset=name).items()}
    table = commutativity(runs, ["DE"])
    assert table["cell_verdict_alone"].tolist() == ["commute"] * 4
    assert table["cell_verdict"].tolist() == ["undecided"] * 4
    np.testing.assert_allclose(table["cell_holm_equivalent"], 4 * table["cell_p_equivalent"])
    assert (table["more_seeds"] == 0).all()
    assert sentences(table)[0] == (
        "D+E on MRPC: undecided: within 2 points (+0.1 to +1.6) when tested alone, but not once "
        "corrected for 4 cells (about 1 more seed)"
    )


def test_the_sentence_is_the_same_when_the_table_is_read_back() -> None:
    table = commutativity(three_orders(0, 0.1, 2.0) | apart(1.0, 5.0, 2.0), ["DPE", "DE"])
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert sentences(again) == sentences(table)
    assert len(sentences(table)) == 2


def test_seeds_whose_curves_share_no_time_are_left_out() -> None:
    runs = apart(0.1, 0.2, 0.3)
    runs["sst2", "ED", 2] = TradeoffCurve(np.array([2.0, 3.0]), np.array([0.5, 0.5]))
    with pytest.warns(
        UserWarning, match="DE on sst2: the curves of DE and ED share no time in 1 of 3"
    ) as caught:
        table = commutativity(runs, ["DE"])
    assert len(caught) == 1
    assert table["n_seeds"].tolist() == [2]
    assert table["mean_difference"].to_numpy() == pytest.approx([0.15])


def test_curves_that_never_share_a_time_have_no_verdict() -> None:
    runs = {
        ("sst2", name, seed): TradeoffCurve(np.array([float(place)]), np.array([0.5]))
        for place, name in enumerate(["DE", "ED"])
        for seed in range(3)
    }
    with pytest.warns(UserWarning, match="in 3 of 3 seeds"):
        table = commutativity(runs, ["DE"])
    assert table["cell_verdict"].tolist() == ["no verdict"]
    assert table["n_cells"].tolist() == [0]
    assert sentences(table) == ["D+E on SST-2: no verdict: the curves of DE and ED share no time"]


def test_a_cell_without_a_verdict_names_the_pair_that_has_none() -> None:
    """Another pair matters by itself, and no more once corrected for two cells."""
    noise = 0.9 * np.array([-1, -0.6, -0.2, 0.2, 0.6, 1])
    runs = {
        (dataset, ordering, seed): TradeoffCurve(np.array(times), np.full(2, accuracy))
        for dataset in ("sst2", "mrpc")
        for seed in range(6)
        for ordering, times, accuracy in (
            ("DEP", [1.0, 2.0], 0.8),
            ("DPE", [1.0, 2.0], 0.8 - (2.7 + noise[seed]) / 100),
            ("EDP", [3.0, 4.0], 0.8),
        )
    }
    with pytest.warns(UserWarning, match="share no time"):
        table = commutativity(runs, ["DPE"])
    assert set(table["cell_verdict_alone"]) == {"order matters"}
    assert sentences(table)[0].startswith("D+P+E on SST-2: no verdict: the curves of ")


def test_one_seed_has_means_and_no_verdict() -> None:
    row = commutativity(apart(1.5), ["DE"]).iloc[0]
    assert row["mean_difference"] == row["max_difference"] == pytest.approx(1.5)
    assert row["verdict"] == row["cell_verdict"] == row["full_depth_verdict"] == "no verdict"
    assert row[["sd", "low", "high", "p_equivalent", "p_matters", "more_seeds", "same_ordering"]].isna().all()


@pytest.mark.parametrize("margin", [0, -1, math.nan, math.inf])
def test_the_margin_must_be_positive(margin: float) -> None:
    with pytest.raises(
        PipeOpsError, match=f"^commutativity.margin: {margin:g} is not a positive number; name"
    ):
        commutativity(apart(1, 2), ["DE"], margin=margin)


def test_missing_runs_are_named() -> None:
    runs = apart(1, 2)
    del runs["sst2", "ED", 1]
    with pytest.raises(PipeOpsError, match="^ordering ED has no curve for seed 1; measure it first$"):
        commutativity(runs, ["DE"])
    with pytest.raises(PipeOpsError, match="comparing them needs at least two"):
        commutativity(runs, ["D"])
    with pytest.raises(PipeOpsError, match="have no curves on sst2; measure them first"):
        commutativity(runs, ["PE"])
    runs = three_orders(0, 0, 0)
    for seed in range(6):
        del runs["sst2", "DPE", seed]
    with pytest.raises(PipeOpsError, match="ordering DPE has no curve for seed 0"):
        commutativity(runs, ["DPE"])


def test_other_pipelines_are_left_aside_and_no_sets_give_no_rows() -> None:
    runs = apart(0.1, 0.2, 0.3)
    expected = commutativity(runs, ["DE"])
    pd.testing.assert_frame_equal(commutativity(runs | flat({"O": [90], "E": [80]}), ["DE"]), expected)
    assert commutativity(runs, []).columns.tolist() == COLUMNS
    assert sentences(commutativity(runs, [])) == []


def test_yardsticks_by_hand() -> None:
    runs = {run[1:]: curve for run, curve in flat({"DE": [80, 81, 83], "ED": [70, 74, 74]}).items()}
    assert same_ordering(runs) == pytest.approx((2 + 8 / 3) / 2)
    once, again = apart(0.0, 0.0), apart(0.4, -0.2)
    assert priced_twice([(once[run], again[run]) for run in once]) == pytest.approx(0.15)


@pytest.mark.parametrize("seeds", [5, 6, 10])
@pytest.mark.parametrize("sd", [0.3, 0.7, 1.5])
def test_level_and_power_of_the_tests(seeds: int, sd: float) -> None:
    """At the margin each claim is false: at most 5% of the studies make it. Beside it they are made."""
    rng = np.random.default_rng(seeds)
    studies = 20_000
    slack = 3 * math.sqrt(0.05 * 0.95 / studies)
    noise = rng.normal(scale=sd, size=(studies, seeds))
    at_margin = estimate(2 + noise)
    assert (at_margin.p_equivalent <= 0.05).mean() <= 0.05 + slack
    assert (at_margin.p_matters <= 0.05).mean() <= 0.05 + slack
    if sd < 1:
        assert (estimate(noise).p_equivalent <= 0.05).mean() > 0.99
        assert (estimate(4 + noise).p_matters <= 0.05).mean() > 0.99


def test_level_of_a_cell_of_three_orders_that_share_d() -> None:
    rng = np.random.default_rng(0)
    studies, seeds = 20_000, 5
    shared = rng.normal(size=(studies, seeds))
    dep, dpe, edp = (rng.normal(scale=0.5, size=(studies, seeds)) for _ in range(3))
    dep, dpe = dep + shared, dpe + shared + 2  # DPE is ahead of both others by the margin
    of_pairs = [estimate(a - b) for a, b in itertools.combinations([dep, dpe, edp], 2)]
    equivalent, matters = cell_p_values(
        np.stack([of.p_equivalent for of in of_pairs], -1), np.stack([of.p_matters for of in of_pairs], -1)
    )
    assert (equivalent <= 0.05).mean() <= 0.05
    assert (matters <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_holm_keeps_false_claims_of_a_table_rare() -> None:
    rng = np.random.default_rng(1)
    tables, cells = 10_000, 12
    for claim in ("p_equivalent", "p_matters"):
        p = getattr(estimate(rng.normal(2, 0.7, size=(tables, cells, 6))), claim)
        assert (holm(p) <= 0.05).any(axis=1).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)
        assert (p <= 0.05).any(axis=1).mean() > 0.3


def rising(rng: np.random.Generator, *, effect: float, seeds: int = 6) -> Curves:
    """Rising curves with noise in every point and between the seeds; DE is ahead by ``effect`` points."""
    curves: Curves = {}
    for seed in range(seeds):
        of_the_seed = rng.normal(scale=0.01)
        for name, ahead in (("DE", effect / 100), ("ED", 0)):
            time = np.array([*np.sort(rng.uniform(0.1, 1, size=5)), 1])
            accuracy = 0.7 + 0.1 * np.sqrt(time) + of_the_seed + ahead + rng.normal(scale=0.004, size=6)
            curves["sst2", name, seed] = TradeoffCurve(time, accuracy)
    return curves


@pytest.mark.parametrize(
    ("effect", "expected"), [(0, Verdict.COMMUTE), (-4, Verdict.MATTERS), (4, Verdict.MATTERS)]
)
def test_verdicts_of_planted_curves(effect: float, expected: Verdict) -> None:
    rng = np.random.default_rng(2)
    verdicts = [commutativity(rising(rng, effect=effect), ["DE"])["cell_verdict"][0] for _ in range(30)]
    assert verdicts.count(expected) >= 29


def test_planted_curves_at_the_margin_are_rarely_decided() -> None:
    rng = np.random.default_rng(3)
    verdicts = [commutativity(rising(rng, effect=2), ["DE"])["cell_verdict"][0] for _ in range(100)]
    assert verdicts.count("undecided") >= 80


def test_no_warning_escapes_where_every_figure_exists() -> None:
    with warnings.catch_warnings(action="error"):
        words(rising(np.random.default_rng(4), effect=0))
        words(apart(1, 1, 1))
        words(apart(1))
