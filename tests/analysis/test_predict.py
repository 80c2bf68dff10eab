"""Predictions and recommendations: exact where the equations hold, honest where they do not."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from measured import made_up_replays

from pipeops.analysis.predict import (
    COLUMNS,
    MEASURED,
    PREDICTED,
    Predictor,
    error_width,
    half_width,
    predict,
    tabulate,
)
from pipeops.analysis.recommend import Budget, candidates, name_of, recommend, refusals
from pipeops.analysis.regret import regret
from pipeops.errors import PipeOpsError
from pipeops.measuring.classes import MACRO_F1, MCC
from pipeops.pipeline import INFERENCE, Pipeline, trained_pipelines

THRESHOLDS = [0.0, 0.6, 0.8, 0.95, 1.01]
ALL = ("O", "D", "P", "E", "DP", "DE", "ED", "PE", "EP", "DPE", "DEP", "EDP")
PIPELINES = [Pipeline(name) for name in trained_pipelines() if "C" not in name]


def of(pipelines, seeds=(1, 2, 3), **options):
    return made_up_replays(
        [(name, seed) for name in pipelines for seed in seeds], thresholds=THRESHOLDS, **options
    )


@pytest.fixture(scope="module")
def everything():
    return of(ALL)


@pytest.fixture(scope="module")
def prices(everything):
    return everything.prices("sst2")


@pytest.fixture(scope="module")
def parts(everything):
    """The same runs, of O, D, P, E and DE alone."""
    kept = {run: replay for run, replay in everything.runs.items() if run[1] in ("O", "D", "P", "E", "DE")}
    return dataclasses.replace(everything, runs=kept)


def test_every_pipeline_is_there_once_as_measured_or_predicted(parts, prices):
    table = predict("sst2", parts, prices, PIPELINES)
    assert table.columns.tolist() == COLUMNS
    kinds = table.drop_duplicates(["pipeline", "inference"]).set_index(["pipeline", "inference"])["kind"]
    assert len(kinds) == len(ALL) * len(INFERENCE)
    assert {pipeline for pipeline, _ in kinds[kinds == MEASURED].index} == {"O", "D", "P", "E", "DE"}
    with_exits = table[table["pipeline"] == "EDP"]
    assert with_exits["threshold"].tolist() == THRESHOLDS * 4
    assert (
        (table["accuracy_low"] <= table["accuracy"]) & (table["accuracy"] <= table["accuracy_high"])
    ).all()
    assert ((table["time_low"] < table["time_relative"]) == (table["kind"] == PREDICTED)).mean() > 0.5
    np.testing.assert_allclose(table["time_ms"], 4 * table["time_relative"])


def test_measured_points_are_the_means_of_the_runs(everything, prices):
    table = predict("sst2", everything, prices, PIPELINES)
    rows = table[(table["pipeline"] == "PE") & (table["inference"] == "LQ")]
    points = [
        [
            (p["accuracy"], p["time_relative"])
            for p in everything.runs["sst2", "PE", seed].points("LQ", "max_probability", THRESHOLDS)
        ]
        for seed in (1, 2, 3)
    ]
    np.testing.assert_allclose(rows[["accuracy", "time_relative"]], np.mean(points, axis=0))
    assert set(table["kind"]) == {MEASURED}


@pytest.mark.parametrize("metric", [MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_a_metric_takes_the_place_of_accuracy(metric):
    replays = of(("O", "D", "P", "E", "DE"), metric=metric, every=5)
    prices = replays.prices("sst2")
    table = predict("sst2", replays, prices, [Pipeline(name) for name in ("O", "D", "DE", "ED")])
    assert set(table["metric"]) == {metric.name}
    assert (table[["accuracy_low", "accuracy_high"]].to_numpy() >= metric.least).all()
    known = Predictor("sst2", replays, prices)
    run = replays.runs["sst2", "E", 2]
    exits = replays.leaving(("sst2", "E", 2))
    full = {
        name: float(
            metric.of_answers(run.answers.label_ids, replays.runs["sst2", name, 2].variants[""].said[:, -1])
        )
        for name in "OD"
    }
    of_e = [run.variants[""].quality(one) for one in exits]
    predicted = known.predicted(Pipeline("ED"), "")
    np.testing.assert_allclose(predicted.accuracy[1], np.array(of_e) * full["D"] / full["O"])
    measured = known.measured(Pipeline("DE"), "Q")
    points = replays.runs["sst2", "DE", 3].points("Q", "max_probability", THRESHOLDS)
    np.testing.assert_allclose(measured.accuracy[2], [point["accuracy"] for point in points])
    assert set(regret(replays)["metric"]) == {metric.name}


def test_what_the_original_has_is_predicted_of_itself(everything, prices):
    """O and E by themselves: every equation is the identity there, and the price is the one that was paid."""
    known = Predictor("sst2", everything, prices)
    for name in ("O", "E"):
        for inference in INFERENCE:
            predicted, measured = (
                known.predicted(Pipeline(name), inference),
                known.measured(Pipeline(name), inference),
            )
            np.testing.assert_allclose(predicted.accuracy, measured.accuracy)
            np.testing.assert_allclose(predicted.time, measured.time)


def test_a_single_operator_follows_its_accuracy_ratio(everything, prices):
    known = Predictor("sst2", everything, prices)
    by_hand = known.measured(Pipeline("D"), "").accuracy * known.measured(Pipeline("P"), "").accuracy
    by_hand = by_hand / known.measured(Pipeline("O"), "").accuracy
    np.testing.assert_allclose(known.predicted(Pipeline("DP"), "").accuracy, by_hand)


def test_no_prediction_leaves_the_metrics_range(prices):
    better, worse = of(("D", "P", "E"), right=0.98), of(("O",), right=0.7)
    replays = dataclasses.replace(better, runs=better.runs | worse.runs)
    predicted = Predictor("sst2", replays, prices).predicted(Pipeline("DPE"), "").accuracy
    assert predicted.max() == 1
    assert predicted.min() >= 0
    table = predict("sst2", replays, prices, PIPELINES)
    ends = table[["accuracy", "accuracy_low", "accuracy_high"]].dropna()
    assert ends.to_numpy().max() == 1
    assert ends.to_numpy().min() >= 0


def test_what_has_v_follows_vs_ratio_and_the_lengths_that_it_cuts_texts_into():
    replays = of(("O", "V", "E", "VE", "D"))
    longer = {}
    for (dataset, name, seed), replay in replays.runs.items():
        answers = replay.answers
        if name.startswith("V"):
            answers = dataclasses.replace(answers, lengths=np.minimum(answers.lengths + 3, 12))
        longer[dataset, name, seed] = dataclasses.replace(replay, answers=answers)
    known = Predictor("sst2", dataclasses.replace(replays, runs=longer), replays.prices("sst2"))
    full = {name: known.measured(Pipeline(name), "").accuracy[:, -1:] for name in "OV"}
    predicted, of_e = known.predicted(Pipeline("VE"), ""), known.measured(Pipeline("E"), "")
    np.testing.assert_allclose(predicted.accuracy, of_e.accuracy * full["V"] / full["O"])
    np.testing.assert_allclose(predicted.time, of_e.time)  # padded, and priced alike here
    shorter = known.measured(Pipeline("E"), "L").time
    assert (known.predicted(Pipeline("VE"), "L").time > shorter).all()
    assert known.missing(Pipeline("VDP")) == ["P"]
    assert known.missing(Pipeline("VC")) == ["VC"]


def test_errors_are_those_of_what_was_measured_beside_the_parts(parts, prices):
    known = Predictor("sst2", parts, prices)
    errors = known.errors()
    differences = np.array(
        [
            known.predicted(Pipeline("DE"), letters).accuracy.mean(axis=0)
            - known.measured(Pipeline("DE"), letters).accuracy.mean(axis=0)
            for letters in INFERENCE
        ]
    )
    np.testing.assert_allclose(errors.accuracy, np.sqrt((differences**2).mean(axis=0)))
    # The first threshold lets all leave at once, and the last none: their times are prices.
    assert np.flatnonzero(errors.time > 1e-9).tolist() == [1, 2, 3]
    assert errors.sets.tolist() == [1] * len(THRESHOLDS)
    assert np.isnan(known.errors(but="DE").accuracy).all()
    alone = {run: replay for run, replay in parts.runs.items() if run[1] != "DE"}
    assert not Predictor("sst2", dataclasses.replace(parts, runs=alone), prices).errors().sets.any()


def test_every_set_of_operators_counts_once_and_full_depth_counts_those_without_exits(everything, prices):
    known = Predictor("sst2", everything, prices)
    assert known.errors().sets.tolist() == [3, 3, 3, 3, 4]
    assert known.errors(but="DPE").sets.tolist() == [2, 2, 2, 2, 3]
    assert known.errors(but="DP").sets.tolist() == [3, 3, 3, 3, 3]

    def off(pipeline, letters):
        guessed, measured = (
            known.predicted(Pipeline(pipeline), letters),
            known.measured(Pipeline(pipeline), letters),
        )
        return guessed.accuracy.mean(axis=0)[-1] - measured.accuracy.mean(axis=0)[-1]

    sets = (("DP",), ("DE", "ED"), ("PE", "EP"), ("DPE", "DEP", "EDP"))
    by_set = [np.mean([off(p, letters) ** 2 for p in orders for letters in INFERENCE]) for orders in sets]
    assert known.errors().accuracy[-1] == pytest.approx(math.sqrt(np.mean(by_set)))


def test_what_is_taken_as_not_measured_is_predicted_without_its_sets_runs(everything, prices):
    single = ("O", "D", "P", "E")
    table = tabulate(Predictor("sst2", everything, prices), PIPELINES, measured=single)
    assert set(table[table["kind"] == MEASURED]["pipeline"]) == set(single)
    # Other orderings of the set tell nothing: without their runs the intervals are the same.
    for left_out in (("DE",), ("ED", "DE")):
        kept = {run: replay for run, replay in everything.runs.items() if run[1] not in left_out}
        fewer = predict("sst2", dataclasses.replace(everything, runs=kept), prices, PIPELINES)
        columns = ["accuracy", "time_low", "time_high", "accuracy_low", "accuracy_high"]
        same = [rows[rows["pipeline"] == "DE"][columns].to_numpy() for rows in (table, fewer)]
        if len(left_out) == 2:
            np.testing.assert_allclose(*same)
        else:
            np.testing.assert_allclose(same[0][:, 0], same[1][:, 0])
            assert not np.allclose(*same)  # ED was really measured there, and so it counts


def test_intervals_of_one_more_training_cover_it():
    """Simulated: runs of one pipeline whose accuracies are normal over seeds."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(4_000):
        values = rng.normal(size=(7, 1))
        half = half_width(values[:6], math.nan, 0)
        covered.append(abs(values[6] - values[:6].mean()) <= half)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("degrees", [2, 15])
def test_intervals_of_one_more_training_cover_it_where_there_is_one_seed(degrees):
    """Simulated: seeds of other pipelines say how much seeds differ."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(4_000):
        spread = math.sqrt(rng.normal(size=(degrees, 2)).var(axis=1, ddof=1).mean())
        one, another = rng.normal(size=(2, 1, 1))
        covered.append(abs(another - one) <= half_width(one, spread, degrees))
    assert np.mean(covered) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("between_sets", [0.0, 1.0, 3.0])
def test_intervals_of_predictions_cover_one_more_training(sets, between_sets):
    """Simulated: the predictions of a set are all off by one number, and seeds differ by SD 1.

    Where nothing but seeds makes predictions differ, the intervals are wider than they need be.
    """
    rng, n, covered = np.random.default_rng(0), 6, []
    for _ in range(4_000):
        off = rng.normal(scale=between_sets, size=sets + 1)
        guessed, measured = rng.normal(size=(2, sets + 1, n))
        errors = (guessed + off[:, None]).mean(axis=1) - measured.mean(axis=1)
        rms = np.sqrt(np.mean(errors[1:] ** 2, keepdims=True))
        half = np.hypot(half_width(guessed[0][:, None], math.nan, 0), error_width(rms, np.array([sets])))
        covered.append(abs(guessed[0].mean() + off[0] - rng.normal()) <= half)
    assert 0.89 <= np.mean(covered) <= (0.99 if between_sets == 0 else 0.97)


def test_one_seed_takes_the_spread_of_the_others(everything, prices):
    kept = {run: replay for run, replay in everything.runs.items() if run[1] != "DPE" or run[2] == 1}
    table = predict("sst2", dataclasses.replace(everything, runs=kept), prices, PIPELINES)
    assert table[table["pipeline"] == "DPE"]["accuracy_low"].notna().all()
    single = predict("sst2", of(("O", "E"), seeds=[1]), prices, [Pipeline("O"), Pipeline("E")])
    assert single["accuracy_low"].isna().all()


def test_by_patience_a_model_of_fewer_exits_has_fewer_thresholds(everything, prices):
    for patiences, of_de in ((None, [1, 2, 3]), ([1, 2, 5], [1, 2])):
        replays = dataclasses.replace(everything, confidence="patience", patiences=patiences)
        kept = {run: replay for run, replay in replays.runs.items() if "D" not in run[1] or run[1] == "D"}
        known = Predictor("sst2", dataclasses.replace(replays, runs=kept), prices)
        curve = known.predicted(Pipeline("DE"), "L")
        assert curve.thresholds == of_de
        assert curve.accuracy.shape == (3, len(of_de))
        assert known.predicted(Pipeline("PE"), "L").thresholds == (patiences or [1, 2, 3, 4, 5, 6])


def test_c_is_known_when_trained_only(parts, prices):
    assert Predictor("sst2", parts, prices).missing(Pipeline("C")) == ["C"]
    with pytest.raises(PipeOpsError, match="C: to predict it on sst2, train C first"):
        Predictor("sst2", parts, prices).predicted(Pipeline("C"), "")


def test_too_few_runs_name_what_is_missing(prices):
    replays = of(("D",))
    with pytest.raises(PipeOpsError, match="sst2: too few runs to predict from; train O, P, E first"):
        predict("sst2", replays, {"PE": prices["PE"]}, [Pipeline("PE")])


def rows(*points) -> pd.DataFrame:
    """Predictions by hand: (pipeline, inference, threshold, accuracy, time)."""
    columns = ["pipeline", "inference", "threshold", "accuracy", "time_relative"]
    table = pd.DataFrame(points, columns=columns)
    return table.assign(
        metric="accuracy",
        kind=MEASURED,
        time_ms=10 * table["time_relative"],
        parameters=10_000_000,
        accuracy_low=np.nan,
    )


WORLD = rows(
    ("O", "", math.nan, 0.90, 1.0),
    ("O", "Q", math.nan, 0.899, 0.5),
    ("E", "", 0.5, 0.80, 0.2),
    ("E", "", 0.9, 0.895, 0.6),
    ("E", "Q", 0.5, 0.70, 0.1),
    ("E", "Q", 0.9, 0.894, 0.3),
    ("D", "", math.nan, 0.86, 0.5),
    ("D", "Q", math.nan, 0.86, 0.55),
)


def test_the_gate_refuses_what_costs_or_is_not_faster():
    passed, refused = candidates(WORLD, max_drop=1.0)
    assert len(passed) == len(WORLD) - 3
    assert refusals(refused, WORLD, max_drop=1.0) == [
        "E: leaving early costs up to 9.5 points, more than 1; refused at 1 of 2 thresholds",
        "EQ: leaving early costs up to 19.4 points, more than 1; refused at 1 of 2 thresholds",
        "DQ: Q is not faster on this CPU; refused at 1 of 1 thresholds",
    ]
    less = WORLD.assign(accuracy=WORLD["accuracy"].replace(0.894, 0.7))
    assert refusals(candidates(less, max_drop=9.5)[1], less, max_drop=9.5) == [
        "EQ: Q costs up to 19.5 points, more than 9.5; refused at 2 of 2 thresholds",
        "DQ: Q is not faster on this CPU; refused at 1 of 1 thresholds",
    ]


def test_leaving_early_must_be_faster_and_may_be_free():
    table = rows(
        ("E", "", 0.5, 0.89, 0.7), ("E", "", 0.9, 0.90, 0.6), ("E", "", 1.01, 0.90, 0.6),
        ("ED", "", 0.5, 0.91, 0.2), ("ED", "", 1.01, 0.90, 0.6),
    )  # fmt: skip
    passed, refused = candidates(table)
    assert refused[["pipeline", "threshold"]].to_numpy().tolist() == [["E", 0.5]]
    assert refusals(refused, table, max_drop=1.0) == [
        "E: leaving early is not faster on this CPU; refused at 1 of 3 thresholds"
    ]
    assert len(passed) == 4


def test_under_a_time_the_most_accurate_without_one_the_fastest():
    passed, _ = candidates(WORLD)
    best = recommend(passed, Budget(max_time=0.5))
    assert [name_of(row) for _, row in best.iterrows()] == ["OQ", "EQ", "D"]
    assert recommend(passed, Budget(max_time_ms=5.0)).equals(best)
    assert name_of(recommend(passed, Budget(max_drop=1.0)).iloc[0]) == "EQ"
    assert name_of(recommend(passed, Budget(min_accuracy=0.899)).iloc[0]) == "OQ"
    assert name_of(recommend(passed, Budget(min_accuracy=0.899, max_size=50)).iloc[0]) == "OQ"


def test_a_budget_that_nothing_meets_names_the_nearest():
    passed, _ = candidates(WORLD)
    for budget, nearest in (
        (Budget(max_time=0.1), "nearest is EQ with 0.3 of O's time"),
        (Budget(max_time=0.6, min_accuracy=0.8995), "nearest is O with 1 of O's time"),
        (Budget(min_accuracy=0.99), r"nearest is O with 0.9 accuracy \(accuracy 90.0%, 10 ms, 40 MB\)$"),
        (Budget(max_time=1, max_size=5), "nearest is .* with 10.4 MB"),
    ):
        with pytest.raises(PipeOpsError, match=f"nothing meets this budget; {nearest}"):
            recommend(passed, budget)


def test_messages_name_the_metric():
    passed, refused = candidates(WORLD.assign(metric="macro_f1"))
    with pytest.raises(PipeOpsError, match=r"with 0.9 macro-F1 \(macro-F1 90.0%, 10 ms, 40 MB\)$"):
        recommend(passed, Budget(min_accuracy=0.99))
    with pytest.raises(PipeOpsError, match=r"the gate refused E at threshold 0.5 \(macro-F1 80.0%, 2 ms\)"):
        recommend(passed, Budget(max_time=0.2), refused=refused)


def test_a_drop_may_lead_below_0():
    table = rows(
        ("O", "", math.nan, 0.05, 1.0), ("D", "", math.nan, -0.02, 0.5), ("P", "", math.nan, -0.2, 0.2)
    )
    found = recommend(table.assign(metric="mcc"), Budget(max_drop=10))
    assert found["pipeline"].tolist() == ["D", "O"]
    assert len(recommend(WORLD, Budget(max_drop=100))) == WORLD.groupby(["pipeline", "inference"]).ngroups


def test_where_the_gate_is_in_the_way_it_says_so():
    passed, refused = candidates(WORLD)
    said = (
        r"; the gate refused E at threshold 0.5 \(accuracy 80.0%, 2 ms\), as leaving early costs 9.5 points; "
        r"--max-drop 10 allows it$"
    )
    with pytest.raises(PipeOpsError, match=said):
        recommend(passed, Budget(max_time=0.2), refused=refused)
    passed, refused = candidates(WORLD, max_drop=10)
    assert name_of(recommend(passed, Budget(max_time=0.2, max_drop=10)).iloc[0]) == "E"
    with pytest.raises(PipeOpsError, match=r"10 ms, 40 MB\)$"):
        recommend(passed, Budget(min_accuracy=0.99), refused=refused)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "no budget: give --max-time"),
        ({"max_size": 3}, "no budget: give --max-time"),
        ({"max_time": 0}, "--max-time: 0 is no budget"),
        ({"max_time_ms": math.nan}, "--max-time: nan is no budget"),
        ({"min_accuracy": 90}, "--min-accuracy: 90 is more than 1"),
        ({"max_drop": -1}, "--max-drop: -1 is no budget"),
    ],
)
def test_budgets_that_make_no_sense(budget, message):
    with pytest.raises(PipeOpsError, match=message):
        Budget(**budget)
