"""Regret, coverage and rules on planted numbers, and on made-up runs against brute force."""

import dataclasses
import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from measured import made_up_replays

from pipeops.analysis.predict import MEASURED, PREDICTED, Predictor, predict, tabulate
from pipeops.analysis.regret import (
    ANY,
    BUDGETS,
    CHOSEN,
    COLUMNS,
    SINGLE,
    SORTED,
    WEAKER,
    Seeds,
    budgets,
    choice,
    nearest_ordering,
    rank_correlation,
    regret,
    rules,
    summary,
    weaker_first,
)
from pipeops.pipeline import INFERENCE, Pipeline, orderings

THRESHOLDS = [0.0, 0.6, 0.8, 0.95, 1.01]
SINGLES = ("O", "D", "P", "E")
ALL = (*SINGLES, "DP", "DE", "ED", "PE", "EP", "DPE", "DEP", "EDP")


def of(pipelines=ALL, seeds=(1, 2, 3), **options):
    runs = [(name, seed) for name in pipelines for seed in seeds]
    return made_up_replays(runs, thresholds=THRESHOLDS, **options)


@pytest.fixture(scope="module")
def replays():
    return of()


@pytest.fixture(scope="module")
def table(replays):
    return regret(replays)


def rows(*points, kind=PREDICTED) -> pd.DataFrame:
    """By hand: (pipeline, threshold, accuracy, time)."""
    table = pd.DataFrame(points, columns=["pipeline", "threshold", "accuracy", "time_relative"])
    return table.assign(inference="", kind=kind, accuracy_low=math.nan, accuracy_high=math.nan)


EXPECTED = rows(
    ("O", math.nan, 0.90, 1.0), ("DE", 0.5, 0.80, 0.2), ("DE", 0.9, 0.88, 0.4), ("PE", 0.5, 0.85, 0.3)
)
MEASURED_POINTS = rows(
    ("O", math.nan, 0.90, 1.0), ("DE", 0.5, 0.81, 0.2), ("DE", 0.9, 0.87, 0.5), ("PE", 0.5, 0.86, 0.3),
    ("EP", 0.5, 0.84, 0.3), kind=MEASURED,
)  # fmt: skip


def test_regret_by_hand():
    right = choice(EXPECTED, MEASURED_POINTS, 0.3)
    assert (right["chosen"], right["best"], right["regret"]) == ("PE", "PE", 0)
    assert not right["over_budget"]
    # DE at 0.9 was expected to take 0.4 and takes 0.5: what it gives within the budget is 0.5's 81%.
    slow = choice(EXPECTED, MEASURED_POINTS, 0.4)
    assert (slow["chosen"], slow["threshold"], slow["over_budget"]) == ("DE", 0.9, True)
    assert (slow["accuracy"], slow["time_relative"], slow["best"]) == (0.81, 0.2, "PE")
    assert slow["regret"] == pytest.approx(5)
    never = choice(EXPECTED[EXPECTED["pipeline"] != "DE"], MEASURED_POINTS, 0.2)
    assert math.isnan(never["regret"])
    assert never["chosen"] == ""


def test_what_takes_too_long_at_every_threshold_has_no_regret_but_is_said():
    missed = choice(EXPECTED, MEASURED_POINTS.assign(time_relative=[1, 0.45, 0.5, 0.3, 0.3]), 0.4)
    assert missed["over_budget"]
    assert math.isnan(missed["regret"])
    assert "accuracy" not in missed


def test_budgets_go_from_the_fastest_to_os_time_in_equal_steps_of_the_logarithm():
    found = budgets(MEASURED_POINTS.assign(time_relative=[1.03, 0.1, 2, 0.2, 0.3]))
    assert len(found) == BUDGETS
    assert found[0] == pytest.approx(0.1)
    assert found[0] > 0.1  # rounding does not exclude the fastest
    assert found[-1] == pytest.approx(1.03)
    assert np.diff(np.log(found)) == pytest.approx([math.log(10.3) / 9] * 9)


def test_rank_correlations_by_hand():
    expected = rows(
        *((name, 1.0, a, 0.1) for name, a in zip(("DP", "DE", "PE", "DPE"), (4, 3, 2, 1), strict=True))
    )
    measured = expected.assign(accuracy=[4, 3, 1, 2])
    assert rank_correlation(expected, measured, 0.2) == pytest.approx(0.8)
    assert math.isnan(rank_correlation(expected, measured, 0.05))
    assert math.isnan(rank_correlation(expected.assign(accuracy=1), measured, 0.2))
    assert math.isnan(rank_correlation(expected.assign(kind=MEASURED), measured, 0.2))


def test_weaker_perturbations_come_first():
    drops = {"D": 0.06, "P": 0.02, "E": 0.01}
    assert weaker_first("DPE", drops) == "EPD"
    # D cannot come after P: of DEP, DPE and EDP the last exchanges one pair only.
    assert rules("DPE", orderings("DPE"), drops) == {WEAKER: Pipeline("EDP"), SORTED: Pipeline("DPE")}
    assert rules("DE", orderings("DE"), drops) == {WEAKER: Pipeline("ED"), SORTED: Pipeline("DE")}
    assert rules("PE", orderings("PE"), drops | {"P": 0.001})[WEAKER] == Pipeline("PE")
    assert weaker_first("PE", {"P": 0.01, "E": 0.01}) == "EP"


@pytest.mark.parametrize("wanted", ["".join(order) for order in permutations("DPE")])
def test_the_nearest_ordering_is_the_one_itself_where_it_is_valid(wanted):
    valid = {str(order) for order in orderings("DPE")}
    found = str(nearest_ordering(wanted, orderings("DPE")))
    assert found in valid
    assert (found == wanted) == (wanted in valid)


def test_a_row_per_rule_set_and_budget(table):
    assert table.columns.tolist() == COLUMNS
    assert set(table["dataset"]) == {"sst2"}
    of_rules = table.groupby(["rule", "operators"], sort=False)["budget"].nunique()
    assert of_rules[CHOSEN, ANY] == of_rules[SINGLE, ANY] == BUDGETS
    for operators in ("DE", "PE", "DPE"):
        assert 0 < of_rules[WEAKER, operators] == of_rules[SORTED, operators] <= BUDGETS
    assert set(table["operators"]) == {ANY, "DE", "PE", "DPE"}
    assert (table["regret"].dropna() >= 0).all()
    chosen = table[table["rule"] == CHOSEN]
    assert set(chosen["trainings"]) == {4}
    assert set(chosen["trainings_all"]) == {12}
    assert chosen["two_seeds"].notna().all()


def test_regret_against_brute_force(replays, table):
    """Every point of every pipeline looked at one by one."""
    prices, pipelines = replays.prices("sst2"), [Pipeline(name) for name in ALL]
    measured = predict("sst2", replays, prices, pipelines).to_dict("records")
    expected = tabulate(Predictor("sst2", replays, prices), pipelines, measured=SINGLES).to_dict("records")
    for row in table[table["rule"] == CHOSEN].to_dict("records"):

        def fits(point, budget=row["budget"]):
            return point["time_relative"] <= budget

        best = max(point["accuracy"] for point in measured if fits(point))
        promised = max(point["accuracy"] for point in expected if fits(point))
        assert row["best_accuracy"] == pytest.approx(best, abs=1e-4)
        assert row["accuracy_expected"] == pytest.approx(promised, abs=1e-4)
        reached = [
            point["accuracy"]
            for point in measured
            if f"{point['pipeline']}{point['inference']}" == row["chosen"]
            and fits(point)
            and not point["threshold"] > row["threshold"]
        ]
        # Points are in the order of their thresholds.
        assert row["regret"] == pytest.approx(100 * (row["best_accuracy"] - reached[-1]))


def test_a_rules_regret_is_against_the_best_ordering(replays, table):
    measured = predict("sst2", replays, replays.prices("sst2"), orderings("DPE"))
    for row in table[(table["rule"] == SORTED) & (table["operators"] == "DPE")].to_dict("records"):
        within = measured[measured["time_relative"] <= row["budget"]].groupby("pipeline")["accuracy"].max()
        assert row["regret"] == pytest.approx(100 * (within.max() - within["DPE"]), abs=0.01)


def test_intervals_cover_where_the_equations_hold_but_for_noise(table):
    """Made-up models all answer 80% rightly, but for the noise of 200 examples: the equations hold."""
    row = table[table["rule"] == CHOSEN].iloc[0]
    assert 0.85 < row["coverage_accuracy"] <= 1


def test_intervals_do_not_cover_a_set_that_is_off_where_others_are_not(replays):
    """DPE answers 60% rightly instead of 80%, which no other set tells of."""
    worse = of(("DPE", "DEP", "EDP"), right=0.6)
    row = regret(dataclasses.replace(replays, runs=dict(replays.runs) | dict(worse.runs))).iloc[0]
    assert 0.4 < row["coverage_accuracy"] < 0.85


def test_one_seed_has_regret_and_no_intervals():
    found = regret(of(seeds=[1]))
    chosen = found[found["rule"] == CHOSEN]
    assert chosen["regret"].notna().all()
    assert chosen[["coverage_accuracy", "accuracy_low", "two_seeds"]].isna().all().all()


def test_two_seeds_are_apart_as_their_curves_are(replays):
    budget = 0.3
    seeds = Seeds(Predictor("sst2", replays, replays.prices("sst2")), [Pipeline("DE")])
    best = [
        max(
            point["accuracy"]
            for letters in INFERENCE
            for point in replays.runs["sst2", "DE", seed].points(letters, "max_probability", THRESHOLDS)
            if point["time_relative"] <= budget
        )
        for seed in (1, 2, 3)
    ]
    pairs = [abs(best[0] - best[1]), abs(best[0] - best[2]), abs(best[1] - best[2])]
    assert seeds.apart([Pipeline("DE")], budget) == pytest.approx(100 * np.mean(pairs))
    assert math.isnan(seeds.apart([Pipeline("DE")], 1e-6))


def test_the_summary_is_over_budgets(table):
    found = summary(table).set_index(["rule", "operators"])
    chosen = table[table["rule"] == CHOSEN]
    row = found.loc[CHOSEN, ANY]
    assert (row["n"], row["missed"]) == (BUDGETS, 0)
    assert row["regret"] == pytest.approx(chosen["regret"].mean())
    assert row["worst"] == chosen["regret"].max()
    assert row["over_budget"] == chosen["over_budget"].sum()
    assert found.loc[WEAKER, "DPE"]["over_budget"] == 0
