"""Answers and prices read back, and what analyses take from them, against the curves made from the same."""

import dataclasses
import math

import numpy as np
import pytest
from export_models import tiny_shape
from measured import (
    MAX_LENGTH,
    ORIGINAL,
    SHAPE,
    curves_of,
    examples,
    exported,
    made_up_replays,
    write_prices,
    write_runs,
)

from pipeops.analysis.cumulativeness import ANOTHER_SEED, COMPOUND, PRICED, UNCHANGED, cumulativeness
from pipeops.analysis.curves import TradeoffCurve
from pipeops.analysis.metrics import metrics_of
from pipeops.analysis.replays import Replays
from pipeops.analysis.runs import curves
from pipeops.analysis.verdicts import commutativity
from pipeops.errors import PipeOpsError
from pipeops.measuring.classes import ACCURACY, MACRO_F1, MCC
from pipeops.measuring.evaluate import evaluate

THRESHOLDS = [0.0, 0.6, 0.8, 0.95, 1.01]
RUNS = [(pipeline, seed) for pipeline in ("O", "D", "E", "DE", "ED") for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def replays():
    return made_up_replays(RUNS, thresholds=THRESHOLDS)


def same_curve(a: TradeoffCurve, b: TradeoffCurve) -> bool:
    return np.allclose(a.time, b.time) and np.allclose(a.accuracy, b.accuracy)


def test_examples_average_to_the_curve(replays):
    measured = curves(curves_of(replays))
    for run, curve in measured.items():
        assert same_curve(replays.per_example(run).curve(), curve)
    with_lq = curves(curves_of(replays), inference="LQ")
    assert same_curve(replays.per_example(("sst2", "DE", 2), "LQ").curve(), with_lq["sst2", "DE", 2])


def test_priced_twice_are_the_halves_of_the_rounds(replays):
    run = ("sst2", "E", 1)
    once = replays.per_example(run).curve()
    for again, factor in zip(replays.priced_twice(run), (0.99, 1.01), strict=True):
        assert same_curve(again, TradeoffCurve(once.time * factor, once.accuracy))


def test_yardsticks_are_in_the_table_of_verdicts(replays):
    runs = curves(curves_of(replays))
    row = commutativity(runs, ["DE"], replays=replays).iloc[0]
    assert 0 < row["priced_twice"] < 1
    assert row["bootstrap_low"] < row["mean_difference"] < row["bootstrap_high"]
    assert 0 < row["paired_sampling_error"] < row["sampling_error"] < 6
    alone = commutativity(runs, ["DE"]).iloc[0]
    assert alone["verdict"] == row["verdict"]
    assert math.isnan(alone["priced_twice"])


def test_chance_is_the_most_frequent_class(replays):
    assert replays.chance("sst2") == 0.5
    assert replays.n_examples("sst2") == 200


def of_metric(metric, runs=RUNS):
    """One example in five is of the rarer class."""
    return made_up_replays(runs, thresholds=THRESHOLDS, metric=metric, every=5)


@pytest.mark.parametrize(
    ("metric", "chance"), [(ACCURACY, 0.8), (MACRO_F1, 2 * 0.8 / 1.8 / 2), (MCC, 0)], ids=lambda _: ""
)
def test_every_metric_has_its_curves_its_chance_and_its_bootstrap(metric, chance):
    replays = of_metric(metric)
    assert replays.chance("sst2") == pytest.approx(chance)
    table = curves_of(replays)
    assert set(table["metric"]) == {metric.name}
    runs = curves(table)
    for run in runs:
        assert same_curve(replays.per_example(run).curve(), runs[run])
    row = commutativity(runs, ["DE"], metrics=metrics_of(table), replays=replays).iloc[0]
    assert row["metric"] == metric.name
    assert row["bootstrap_low"] < row["mean_difference"] < row["bootstrap_high"]
    assert row["paired_sampling_error"] > 0
    # The formula is that of a share of right answers.
    assert math.isnan(row["sampling_error"]) == (metric is not ACCURACY)


@pytest.mark.parametrize("metric", [MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_estimates_take_the_metric_in_the_place_of_accuracy(metric):
    replays = of_metric(metric)
    table = curves_of(replays)
    study = cumulativeness(table, ["DE"], replays)
    at = (table["seed"] == 2) & (table["inference"] == "")
    o, d, e = (table[at & (table["pipeline"] == name)]["accuracy"].to_numpy() for name in ("O", "D", "E"))
    rows = study[(study["inference"] == "") & (study["pipeline"] == "ED") & (study["seed"] == 2)]
    for estimate in (COMPOUND, PRICED):
        got = rows[rows["estimate"] == estimate]["accuracy_estimated"].to_numpy()
        np.testing.assert_allclose(got, d / o * e)
    assert set(study["metric"]) == {metric.name}


def test_an_original_that_is_no_better_than_chance_cannot_be_scaled_by():
    replays = of_metric(MCC)
    hopeless = made_up_replays([("O", 1)], thresholds=[], metric=MCC, every=5, right=0)
    runs = dict(replays.runs) | dict(hopeless.runs)
    with pytest.raises(PipeOpsError, match="O has -1 in the task's metric, so equations 1 and 2 cannot"):
        cumulativeness(curves_of(dataclasses.replace(replays, runs=runs)), ["DE"])


@pytest.mark.parametrize("inference", ["", "L", "Q", "LQ"])
def test_priced_estimates_pay_for_leaving_where_e_leaves(replays, inference):
    study = cumulativeness(curves_of(replays), ["DE"], replays)
    rows = study[(study["inference"] == inference) & (study["pipeline"] == "ED") & (study["seed"] == 2)]
    priced = rows[rows["estimate"] == PRICED]
    of_e, prices = replays.runs["sst2", "E", 2], replays.runs["sst2", "ED", 2].prices
    for threshold, time in zip(THRESHOLDS, priced["time_relative_estimated"], strict=True):
        paid = []
        for example, exit_of_e in enumerate(of_e.leaving(inference, "max_probability", threshold)):
            layer = math.ceil((exit_of_e + 1) / 2)  # six layers onto three
            length = of_e.answers.lengths[example] if "L" in inference else MAX_LENGTH
            paid.append(prices.costs[inference].at(np.array([length]))[0, layer - 1])
        assert time == pytest.approx(np.mean(paid))
    equations = rows[rows["estimate"] == COMPOUND]
    assert priced["accuracy_estimated"].tolist() == equations["accuracy_estimated"].tolist()


def test_yardsticks_of_an_estimate_are_other_curves(replays):
    measured = curves_of(replays)
    study = cumulativeness(measured, ["DE"], replays)

    def times(pipeline, seed):
        rows = measured[(measured["pipeline"] == pipeline) & (measured["seed"] == seed)]
        return rows[rows["inference"] == "L"]["time_relative"].tolist()

    of_run = study[(study["pipeline"] == "DE") & (study["seed"] == 3) & (study["inference"] == "L")]
    predicted = {name: rows["time_relative_estimated"].tolist() for name, rows in of_run.groupby("estimate")}
    assert set(predicted) == {COMPOUND, PRICED, ANOTHER_SEED, UNCHANGED}
    assert predicted[ANOTHER_SEED] == times("DE", 1)  # after the last seed comes the first
    assert predicted[UNCHANGED] == times("E", 3)


def test_by_patience_curves_are_compared_where_both_have_thresholds():
    replays = made_up_replays(RUNS, thresholds=[])
    replays = dataclasses.replace(replays, confidence="patience")
    study = cumulativeness(curves_of(replays), ["DE"], replays)
    of_run = study[(study["pipeline"] == "DE") & (study["seed"] == 1) & (study["inference"] == "")]
    assert set(of_run["threshold"]) == {1, 2, 3}  # the student's exits; E has six
    assert of_run.groupby("estimate").size().tolist() == [3, 3, 3, 3]
    assert of_run["mean_time_error"].notna().all()


def test_one_seed_has_no_other():
    runs = [(pipeline, 1) for pipeline in ("O", "D", "E", "DE")]
    study = cumulativeness(curves_of(made_up_replays(runs, thresholds=THRESHOLDS)), ["DE"])
    assert ANOTHER_SEED not in set(study["estimate"])


def test_without_threshold_0_t_e_is_not_known(replays):
    later = made_up_replays(RUNS, thresholds=THRESHOLDS[2:])
    with pytest.raises(PipeOpsError, match=r"at the lowest threshold, 0.8, inputs go on; add 0 to meas"):
        cumulativeness(curves_of(later), ["DE"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    examples(folder, rows=20)
    exported(folder / "DE", SHAPE)
    for seed in (1, 2):
        answers = folder / f"answers/sst2/DE/seed{seed}.parquet"
        data = folder / "validation.parquet"
        evaluate(folder / "DE", data, answers, dataset="sst2", pipeline="DE", seed=seed)
    write_prices(folder / "prices/sst2/DE.csv")
    return folder


def test_files_are_read_by_their_places(folder):
    read = Replays.read(
        sorted(folder.glob("answers/sst2/DE/*.parquet")),
        [folder / "prices/sst2/DE.csv"],
        metrics={"sst2": "mcc"},
        confidence="entropy",
        thresholds=THRESHOLDS,
    )
    assert set(read.runs) == {("sst2", "DE", 1), ("sst2", "DE", 2)}
    assert read.leaving(("sst2", "DE", 1)).shape == (len(THRESHOLDS), 20)
    assert read.metric("sst2") is MCC


def test_answers_without_their_prices_or_of_another_run_are_refused(folder, tmp_path):
    rule = {"metrics": {"sst2": "accuracy"}, "confidence": "entropy", "thresholds": THRESHOLDS}
    answers = folder / "answers/sst2/DE/seed1.parquet"
    with pytest.raises(PipeOpsError, match="seed1.parquet: no prices of DE on sst2; price them first"):
        Replays.read([answers], [], **rule)
    moved = tmp_path / "answers/sst2/DE/seed9.parquet"
    moved.parent.mkdir(parents=True)
    moved.write_bytes(answers.read_bytes())
    with pytest.raises(PipeOpsError, match="answers of seed 1, the study asks for 9"):
        Replays.read([moved], [folder / "prices/sst2/DE.csv"], **rule)
    other = write_prices(
        tmp_path / "prices/sst2/DE.csv", tiny_shape(vocab_size=60, exit_layers=(2, 3)), original=ORIGINAL
    )
    with pytest.raises(PipeOpsError, match="prices of another shape"):
        Replays.read([answers], [other], **rule)


@pytest.mark.parametrize(
    ("changed", "refused"), [(("V", "VP"), None), (("VP",), "VP"), (("P",), "P"), (("O",), "P")]
)
def test_v_alone_may_cut_the_examples_into_other_pieces(tmp_path, changed, refused):
    replays = made_up_replays([(name, 1) for name in ("O", "P", "V", "VP")], thresholds=THRESHOLDS, rows=20)
    runs = {}
    for run, replay in replays.runs.items():
        lengths = replay.answers.lengths
        if run[1] in changed:
            lengths = 15 - lengths  # as they are priced, from 3 to 12
        runs[run] = dataclasses.replace(replay, answers=dataclasses.replace(replay.answers, lengths=lengths))
    write_runs(tmp_path, dataclasses.replace(replays, runs=runs))
    files = [[tmp_path / f"answers/sst2/{name}/seed1.parquet" for _, name, _ in runs]]
    files.append([tmp_path / f"prices/sst2/{name}.csv" for _, name, _ in runs])
    rule = {"metrics": {"sst2": "accuracy"}, "confidence": "max_probability", "thresholds": THRESHOLDS}
    if refused is None:
        assert len(Replays.read(*files, **rule).runs) == 4
        return
    with pytest.raises(PipeOpsError, match=f"{refused}/seed1.parquet: answers other examples than"):
        Replays.read(*files, **rule)
