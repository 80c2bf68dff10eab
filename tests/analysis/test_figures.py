"""Figures by what they hold: lines, their data and labels, not pixels."""

import numpy as np
import pandas as pd
import pytest
from helpers import flat, measured
from measured import made_up_replays

from pipeops.analysis import figures
from pipeops.analysis.commutativity import compare
from pipeops.analysis.curves import mean_curve
from pipeops.analysis.predict import Predictor, tabulate
from pipeops.analysis.regret import regret
from pipeops.analysis.runs import curves
from pipeops.errors import PipeOpsError
from pipeops.pipeline import Pipeline

SETS = ["DE", "PE"]


@pytest.fixture(scope="module")
def runs():
    """Two datasets; the second seed's times and accuracies are a little larger."""
    table = measured(("O", "D", "P", "E", "DE", "ED", "PE", "EP"))
    table.loc[table["seed"] == 2, ["accuracy", "time_relative"]] *= 1.02
    return pd.concat([table, table.assign(dataset="generated-sentiment")], ignore_index=True)


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def data(line):
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_figure_2_has_a_panel_per_set_colours_for_datasets_and_markers_for_orders(runs):
    axes = figures.figure2(runs, SETS).axes
    assert [ax.get_title() for ax in axes] == ["D+E (seed 1)", "P+E (seed 1)"]
    found = lines(axes[0])
    assert list(found) == [
        "SST-2, DE", "SST-2, ED", "generated-sentiment, DE", "generated-sentiment, ED",
    ]  # fmt: skip
    colours = {label: line.get_color() for label, line in found.items()}
    markers = {label: line.get_marker() for label, line in found.items()}
    assert colours["SST-2, DE"] == colours["SST-2, ED"] != colours["generated-sentiment, DE"]
    assert markers["SST-2, DE"] == markers["generated-sentiment, DE"] != markers["SST-2, ED"]
    run = curves(runs)["sst2", "DE", 1]
    time, percent = data(found["SST-2, DE"])
    assert time == run.time.tolist()
    assert percent == pytest.approx(100 * run.accuracy)
    assert {text.get_text() for text in axes[0].get_legend().get_texts()} == set(found)
    assert axes[0].get_xlabel() == "time / time of O"


def test_figure_3_has_a_run_a_mean_and_a_band_for_every_order(runs):
    axes = figures.figure3(runs, SETS).axes
    assert len(axes) == 4
    ax = axes[0]
    assert ax.get_title() == "SST-2, D+E (2 seeds, 95% bands)"
    found = lines(ax)
    assert list(found) == ["DE, seed 1", "DE, mean of 2", "ED, seed 1", "ED, mean of 2"]
    assert found["DE, seed 1"].get_linestyle() == "-"
    assert found["DE, mean of 2"].get_linestyle() == "--"
    every = curves(runs)
    mean = mean_curve([every["sst2", "DE", 1], every["sst2", "DE", 2]])
    assert data(found["DE, mean of 2"])[1] == pytest.approx(100 * mean.accuracy)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(max(0, 100 * mean.low.min()))
    assert band.max() == pytest.approx(min(100, 100 * mean.high.max()))


def test_figure_3_of_one_seed_says_that_there_is_no_mean(runs):
    axes = figures.figure3(runs[runs["seed"] == 1], ["DE"]).axes
    assert axes[0].get_title() == "SST-2, D+E (one seed: no mean)"
    assert list(lines(axes[0])) == ["DE, seed 1", "ED, seed 1"]
    assert not axes[0].collections


def test_figure_4_shows_target_e_and_estimate(runs):
    axes = figures.figure4(runs, SETS).axes
    assert [ax.get_title() for ax in axes[:2]] == ["SST-2, D+E", "SST-2, P+E"]
    found = lines(axes[0])
    assert list(found) == ["E, measured", "DE, measured", "ED, measured", "D+E, estimated"]
    assert len({str(found[name].get_color()) for name in found}) == 3
    assert found["DE, measured"].get_color() == found["ED, measured"].get_color()
    one_seed = runs[runs["seed"] == 1]
    ax = figures.figure4(one_seed, SETS).axes[0]
    time, percent = data(lines(ax)["D+E, estimated"])
    # Where the equations hold, the estimate is the measurement: that of test_cumulativeness.
    assert time == pytest.approx([0.1, 0.32, 0.595])
    assert percent == pytest.approx([54, 72, 81])


def test_the_heat_map_holds_differences_and_p_values():
    comparisons = {
        ("sst2", "DE"): compare(flat({"DE": [80, 81], "ED": [84, 82]})),
        ("qqp", "PE"): compare(flat({"PE": [80], "EP": [90]})),
    }
    ax = figures.heat_map_of(comparisons, {("sst2", "DE"): "undecided"}).axes[0]
    cells = np.ma.asarray(ax.collections[0].get_array()).reshape(2, 2)
    assert cells[0, 0] == pytest.approx(2.5 - 1.5)
    assert cells.mask[0, 1]
    texts = [text.get_text() for text in ax.texts]
    assert "Same 1.50\nDiff. 2.50\np = 0.5 (at best 0.5)\nundecided" in texts
    assert any("no p-value" in text for text in texts) == (not cells.mask[1, 1])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["D+E", "P+E"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["SST-2", "QQP"]


def test_the_pareto_figure_draws_and_names_the_front():
    rows = [
        ("sst2", "O", "", 0.90, 1.0), ("sst2", "O", "LQ", 0.89, 0.2), ("sst2", "D", "", 0.85, 0.5),
        ("sst2", "D", "LQ", 0.84, 0.1), ("sst2", "P", "Q", 0.80, 0.15), ("sst2", "D", "LQ", 0.895, 0.3),
    ]  # fmt: skip
    columns = ["dataset", "pipeline", "inference", "accuracy", "time_relative"]
    table = pd.DataFrame(rows, columns=columns).assign(metric="accuracy", seed=1, threshold=range(len(rows)))
    ax = figures.pareto(table, []).axes[0]
    front = lines(ax)["Pareto front"]
    time, percent = data(front)
    assert time == [0.1, 0.2, 0.3, 1.0]
    assert percent == pytest.approx([84, 89, 89.5, 90])
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["1", "2", "3", "on the front\n 1  DLQ\n 2  OLQ\n 3  O"]
    assert sum(len(points.get_offsets()) for points in ax.collections) == 6
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["as it is", "L", "Q", "LQ", "Pareto front"]


def test_the_joint_figure_has_a_panel_per_measure():
    table = measured(("O", "DEP", "DE", "D")).query("pipeline != 'D'").replace({"DE": "C"})
    table = table.assign(flops_relative=table["time_relative"] / 2)
    exits = table.assign(parameters_relative=table["time_relative"] / 4).rename(
        columns={"threshold": "exit_layer"}
    )
    axes = figures.joint(table, ["O", "C", "DEP"], exits=exits).axes
    assert [ax.get_xlabel() for ax in axes] == ["parameters over O's", "FLOPs over O's", "time over O's"]
    assert set(lines(axes[0])) == {"O", "C", "DEP", "Pareto front"}
    assert set(lines(axes[2])) == {"O", "OLQ", "C", "CLQ", "DEP", "DEPLQ", "Pareto front"}
    curve = curves(table)["sst2", "C", 1]
    for ax, scale in zip(axes, (1 / 4, 1 / 2, 1), strict=True):
        time, percent = data(lines(ax)["C"])
        assert time == pytest.approx(scale * curve.time)
        assert percent == pytest.approx(100 * curve.accuracy)


def test_points_are_means_over_seeds(runs):
    points = figures.operating_points(runs)
    row = points[(points["name"] == "DEQ") & (points["threshold"] == 0) & (points["dataset"] == "sst2")]
    of_seed_1 = curves(runs, inference="Q")["sst2", "DE", 1]
    assert row["time_relative"].item() == pytest.approx(1.01 * of_seed_1.time[0])


@pytest.mark.parametrize(
    "draw",
    [
        lambda empty: figures.figure2(empty, SETS),
        lambda empty: figures.figure3(empty, SETS),
        lambda empty: figures.figure4(empty, []),
        lambda empty: figures.heatmap(empty, SETS, margin=2),
        lambda empty: figures.pareto(empty, []),
        lambda empty: figures.joint(empty, ["C"], exits=empty),
    ],
)
def test_zero_curves_are_one_clear_line(draw):
    with pytest.raises(PipeOpsError, match=r"^no (estimated )?(curves|comparisons) to draw: .*$"):
        draw(measured(()))


def test_files_are_the_same_bytes_every_time(runs, tmp_path):
    for name in ("a", "b"):
        outputs = {form: str(tmp_path / f"{name}.{form}") for form in ("png", "pdf")}
        figures.save(figures.figure2(runs, SETS), outputs)
    for form, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        content = (tmp_path / f"a.{form}").read_bytes()
        assert content.startswith(magic)
        assert content == (tmp_path / f"b.{form}").read_bytes()


def test_axes_name_the_metric_of_what_they_show(runs):
    runs = runs.assign(metric=runs["dataset"].map({"sst2": "accuracy", "generated-sentiment": "mcc"}))
    runs["flops_relative"] = runs["time_relative"]
    exits = runs.assign(parameters_relative=runs["time_relative"], exit_layer=runs["threshold"])

    def labels(figure):
        return [ax.get_ylabel() for ax in figure.axes]

    assert labels(figures.figure2(runs, SETS)) == ["metric, %"] * 2
    assert labels(figures.figure2(runs[runs["metric"] == "mcc"], SETS)) == ["MCC, %"] * 2
    assert "generated-sentiment (MCC), DE" in lines(figures.figure2(runs, SETS).axes[0])
    for draw in (figures.figure3, figures.figure4):
        assert labels(draw(runs, SETS)) == ["accuracy, %"] * 2 + ["MCC, %"] * 2
    assert labels(figures.pareto(runs, [])) == ["accuracy, %", "MCC, %"]
    joint = figures.joint(runs, ["O", "DE"], exits=exits)
    assert labels(joint) == ["accuracy, %"] * 3 + ["MCC, %"] * 3
    assert joint.axes[3].get_title() == "generated-sentiment: MCC against parameters"
    heat_map = figures.heatmap(runs, SETS, margin=2.0).axes[0]
    assert [one.get_text() for one in heat_map.get_yticklabels()] == ["SST-2", "generated-sentiment (MCC)"]


def test_the_band_of_a_metric_may_reach_below_0(runs):
    table = runs[runs["dataset"] == "sst2"].assign(metric="mcc")
    table["accuracy"] = table["accuracy"] - 0.8 + 0.3 * table["seed"]
    ax = figures.figure3(table, ["DE"]).axes[0]
    assert -100 <= ax.collections[0].get_paths()[0].vertices[:, 1].min() < 0


@pytest.fixture(scope="module")
def replays():
    pipelines = ("O", "D", "P", "E", "DP", "DE", "ED", "PE", "EP")
    runs = [(name, seed) for name in pipelines for seed in (1, 2)]
    return made_up_replays(runs, thresholds=[0.0, 0.7, 1.01])


def test_predictions_have_a_panel_per_inference_operators_and_one_curve_per_predicted_set(replays):
    pipelines = [Pipeline(name) for name in ("O", "D", "P", "E", "DP", "DE", "ED", "PE", "EP")]
    measured = ("O", "D", "P", "E", "PE", "EP")
    table = tabulate(Predictor("sst2", replays, replays.prices("sst2")), pipelines, measured=measured)
    figure = figures.predictions(table)
    assert [ax.get_title() for ax in figure.axes] == [
        f"SST-2: {name}" for name in ("as it is", "L", "Q", "LQ")
    ]
    found = lines(figure.axes[0])
    assert list(found) == [
        "O, measured", "D, measured", "P, measured", "E, measured", "DP, predicted", "DE, ED, predicted",
        "PE, measured", "EP, measured",
    ]  # fmt: skip
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(found)
    assert found["DE, ED, predicted"].get_linestyle() == "--"
    assert found["PE, measured"].get_linestyle() == "-"
    assert found["PE, measured"].get_color() == found["EP, measured"].get_color()
    assert found["PE, measured"].get_marker() != found["EP, measured"].get_marker()
    rows = table[(table["pipeline"] == "DE") & (table["inference"] == "")]
    band = figure.axes[0].collections[-1].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(100 * rows["accuracy_low"].min())
    assert band.max() == pytest.approx(100 * rows["accuracy_high"].max())
    with pytest.raises(PipeOpsError, match="nothing was measured or predicted"):
        figures.predictions(table[:0])


def test_regret_is_drawn_beside_the_noise_of_seeds(replays):
    left, right = figures.regret(pd.DataFrame(), [], replays=replays).axes
    assert (left.get_title(), right.get_title()) == ("SST-2: what was chosen", "SST-2: regret")
    assert {text.get_text() for text in left.get_legend().get_texts()} == {
        "best measured", "chosen, measured", "chosen, expected",
    }  # fmt: skip
    table = regret(replays)
    chosen = table[table["rule"] == "predicted"]
    assert data(lines(right)["predicted"])[1] == pytest.approx(chosen["regret"].tolist())
    assert data(lines(left)["chosen, measured"])[1] == pytest.approx((100 * chosen["accuracy"]).tolist())
    assert "weaker first: order of D+E" in lines(right)
    band = right.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(chosen["two_seeds"].max())
