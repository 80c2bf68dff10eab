"""The mixed-effects summary against its closed form on balanced data, its level, and hand-worked tables."""

import math

import numpy as np
import pytest
from helpers import flat
from scipy.special import stdtrit

from pipeops.analysis.curves import TradeoffCurve
from pipeops.analysis.effects import COLUMNS, effects, mixed_effect


def by_anova(values: np.ndarray) -> tuple[float, float, float, float]:
    """REML of a balanced one-way layout, (groups, members): mean, its SE, SD of groups and within."""
    members = values.shape[1]
    means = values.mean(axis=1)
    between, within = members * means.var(ddof=1), values.var(axis=1, ddof=1).mean()
    if between < within:  # the groups' variance is at its bound, so all deviations estimate one variance
        within = values.var(ddof=1)
        between = within
    sd_groups = math.sqrt((between - within) / members)
    return values.mean(), math.sqrt(between / values.size), sd_groups, math.sqrt(within)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sd_groups", [0.0, 2.0])
def test_balanced_data_have_a_closed_form(seed, sd_groups):
    rng = np.random.default_rng(seed)
    values = 1 + sd_groups * rng.normal(size=(4, 1)) + rng.normal(size=(4, 6))
    found = mixed_effect(values.ravel(), np.repeat(np.arange(4), 6))
    assert found == pytest.approx(by_anova(values), abs=2e-3)


def test_groups_without_scatter_are_known_exactly():
    assert mixed_effect([1, 1, 3, 3], ["a", "a", "b", "b"]) == pytest.approx((2, 1, math.sqrt(2), 0))
    assert mixed_effect([0, 0, 0, 0], ["a", "a", "b", "b"]) == (0, 0, 0, 0)


def test_the_interval_covers_the_mean_over_tasks_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        values = 1 + rng.normal(size=(4, 1)) + 0.5 * rng.normal(size=(4, 6))
        found = mixed_effect(values.ravel(), np.repeat(np.arange(4), 6))
        covered += abs(found.mean - 1) <= stdtrit(3, 0.95) * found.se
    assert 0.85 <= covered / 200 <= 0.95


def study(**tasks: dict[str, list[float]]) -> dict[tuple[str, str, int], TradeoffCurve]:
    return {
        (task, *run): curve for task, accuracies in tasks.items() for run, curve in flat(accuracies).items()
    }


def test_a_row_per_pair_of_orderings():
    runs = study(
        sst2={"DE": [80, 81, 82], "ED": [79, 80.5, 80]}, mrpc={"DE": [70, 71, 72], "ED": [70, 70, 71]}
    )
    [row] = effects(runs, ["DE"], margin=2).to_dict("records")
    assert list(row) == COLUMNS
    assert (row["operators"], row["first"], row["second"]) == ("DE", "DE", "ED")
    assert (row["n_tasks"], row["n_runs"]) == (2, 6)
    mean, se, _, _ = by_anova(np.array([[1, 0.5, 2], [0, 1, 1]]))
    assert (row["effect"], row["se"]) == pytest.approx((mean, se), abs=2e-3)
    assert row["high"] - row["effect"] == pytest.approx(stdtrit(1, 0.95) * row["se"])


@pytest.mark.parametrize(("lead", "verdict"), [(0, "commute"), (5, "order matters"), (2, "undecided")])
def test_the_verdict_compares_the_interval_with_the_margin(lead, verdict):
    tasks = {
        task: {"PE": [80 + lead, 81.1 + lead], "EP": [80.1, 81]} for task in ("sst2", "mrpc", "qnli", "qqp")
    }
    [row] = effects(study(**tasks), ["PE"], margin=2).to_dict("records")
    assert row["verdict"] == verdict


@pytest.mark.parametrize(
    "tasks",
    [
        {"sst2": {"PE": [80, 81], "EP": [80, 82]}},
        {"sst2": {"PE": [80], "EP": [81]}, "mrpc": {"PE": [80], "EP": [82]}},
    ],
    ids=["one task", "one seed"],
)
def test_too_few_runs_have_no_verdict(tasks):
    [row] = effects(study(**tasks), ["PE"], margin=2).to_dict("records")
    assert row["verdict"] == "no verdict"
    assert math.isnan(row["effect"])


def test_a_task_whose_curves_share_no_time_leaves_no_verdict():
    runs = study(sst2={"PE": [80, 81], "EP": [80, 82]}, mrpc={"PE": [80, 81], "EP": [80, 82]})
    for seed in (0, 1):
        runs["mrpc", "PE", seed] = TradeoffCurve(np.array([2.0, 3.0]), np.array([0.8, 0.8]))
    [row] = effects(runs, ["PE"], margin=2).to_dict("records")
    assert (row["n_tasks"], row["n_runs"], row["verdict"]) == (1, 2, "no verdict")
