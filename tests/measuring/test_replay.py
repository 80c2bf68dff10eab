"""Curves from answers and prices: against PyTorch, against really running models, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pandas as pd
import pytest
from export_models import tiny_shape
from measured import MAX_LENGTH, ORIGINAL, SHAPE, costs, examples, exported, write_prices

from pipeops.analysis.runs import pool, pool_exits, read_measurements
from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.hardware import int8_kernels
from pipeops.measuring.answers import read_answers
from pipeops.measuring.classes import METRICS, confusion, counts_of
from pipeops.measuring.evaluate import evaluate
from pipeops.measuring.prices import read_prices
from pipeops.measuring.records import COLUMNS, EXIT_COLUMNS
from pipeops.measuring.replay import Replay, curves
from pipeops.onnx.export import write
from pipeops.onnx.graphs import with_confidence
from pipeops.onnx.runtime import EarlyExitModel
from pipeops.pipeline import INFERENCE

THRESHOLDS = [0, 0.52, 0.55, 0.6, 0.7, 0.8, 0.9, 1.01]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replayed")
    examples(folder, rows=60)
    for pipeline, shape in {"DE": SHAPE, "O": ORIGINAL}.items():
        exported(folder / pipeline, shape)
        evaluate(
            folder / pipeline,
            folder / "validation.parquet",
            folder / f"{pipeline}.parquet",
            dataset="sst2",
            pipeline=pipeline,
            seed=1,
        )
        write_prices(folder / f"{pipeline}.csv", shape)
    return folder


def replay_of(folder, pipeline="DE"):
    return Replay(read_answers(folder / f"{pipeline}.parquet"), read_prices(folder / f"{pipeline}.csv"))


def replayed(folder, output, pipeline="DE", confidence="max_probability", **options):
    replay = replay_of(folder, pipeline)
    options = {"thresholds": THRESHOLDS} | options
    curves(replay.answers, replay.prices, output, confidence=confidence, **options)
    return pd.read_csv(output).fillna({"inference": ""}), json.loads(output.with_suffix(".json").read_text())


def test_accuracy_and_exits_equal_a_replay_in_torch(folder, tmp_path):
    import torch

    from pipeops.models.multi_exit import MultiExitForSequenceClassification

    table, _ = replayed(folder, tmp_path / "DE.csv")
    assert table.columns.tolist() == COLUMNS
    assert table.inference.unique().tolist() == list(INFERENCE)
    model = MultiExitForSequenceClassification.from_pretrained(folder / "DE/checkpoint").eval()
    split = load_tokenised(folder / "validation.parquet")
    plain = table[table.inference == ""]
    assert plain.threshold.tolist() == THRESHOLDS
    for row in plain.itertuples():
        correct, layers = [], []
        for ids, label in zip(split.input_ids, split.label_ids, strict=True):
            with torch.no_grad():
                logits = model(torch.from_numpy(ids)[None]).exit_logits
            left = next((k for k in range(2) if logits[k].softmax(-1).max() >= row.threshold), 2)
            layers.append(left + 1)
            correct.append(int(logits[left].argmax()) == label)
        assert row.accuracy == pytest.approx(np.mean(correct))
        assert row.mean_exit_layer == pytest.approx(np.mean(layers))
    assert len(set(plain.mean_exit_layer)) > 4  # the thresholds in between do something


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize(
    ("confidence", "thresholds"),
    [("max_probability", [0, 0.6, 0.8, 1.01]), ("entropy", [0.6, 0.8, 1.01]), ("patience", [1, 2, 3])],
)
def test_replayed_exits_are_those_of_the_graph(folder, tmp_path, confidence, thresholds, quantised):
    replay, split = replay_of(folder), load_tokenised(folder / "validation.parquet")
    path = folder / "DE" / f"model{'-int8' if quantised else ''}.onnx"
    write(with_confidence(onnx.load(path), confidence, path=path), tmp_path / "model.onnx")
    model = EarlyExitModel.load(tmp_path / "model.onnx", threads=1)
    seen = set()
    for threshold in thresholds:
        expected = replay.leaving("Q" if quantised else "", confidence, threshold)
        for index, ids in enumerate(split.input_ids):
            for tokens in ((ids[None], np.ones_like(ids)[None]), split.padded(index)):
                layer = model.run(*tokens, [threshold, threshold]).exit_layer
                assert layer == expected[index] + 1
                seen.add(layer)
    assert seen == {1, 2, 3}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_curves_are_of_the_metric_and_say_so(folder, tmp_path, metric):
    table, _ = replayed(folder, tmp_path / "DE.csv", metric=metric)
    exits = pd.read_csv(tmp_path / "DE.exits.csv").fillna({"inference": ""})
    assert set(table["metric"]) == set(exits["metric"]) == {metric.name}
    answers = read_answers(folder / "DE.parquet")
    said = {letters: answers.of(letters).argmax(axis=-1) for letters in INFERENCE}
    rows = np.arange(len(answers.lengths))
    for row in table.itertuples():
        left = replay_of(folder).leaving(row.inference, "max_probability", row.threshold)
        matrix = confusion(answers.label_ids, said[row.inference][rows, left], 2)
        assert row.accuracy == pytest.approx(float(metric.of(counts_of(matrix))), abs=1e-15)
    for row in exits.itertuples():
        matrix = confusion(answers.label_ids, said[row.inference][:, row.exit_layer - 1], 2)
        assert row.accuracy == pytest.approx(float(metric.of(counts_of(matrix))), abs=1e-15)
    # Whatever the metric, everything else is the same.
    plain, _ = replayed(folder, tmp_path / "plain.csv")
    others = [column for column in COLUMNS if column not in ("metric", "accuracy")]
    pd.testing.assert_frame_equal(table[others], plain[others])


def test_times_are_the_prices_of_the_exits(folder, tmp_path):
    table, details = replayed(folder, tmp_path / "DE.csv")
    replay = replay_of(folder)
    for row in table.itertuples():
        exits = replay.leaving(row.inference, "max_probability", row.threshold)
        expected = costs(replay.answers.lengths, exits, row.inference).mean()
        assert row.time_relative == pytest.approx(expected)
        assert row.time_ms == pytest.approx(4 * expected)
        assert row.kernels == (int8_kernels() if "Q" in row.inference else "fp32")
    assert details["original_ms"] == 4.0


def test_sizes_are_those_of_the_shape_and_exits_have_their_own_rows(folder, tmp_path):
    table, _ = replayed(folder, tmp_path / "DE.csv")
    exits = pd.read_csv(tmp_path / "DE.exits.csv").fillna({"inference": ""})
    assert exits.columns.tolist() == EXIT_COLUMNS
    assert set(table.parameters) == {SHAPE.parameters}
    assert table.parameters_relative[0] == pytest.approx(SHAPE.parameters / ORIGINAL.parameters)
    plain = exits[exits.inference == ""]
    assert plain.exit_layer.tolist() == [1, 2, 3]
    assert plain.parameters.tolist() == list(SHAPE.exit_parameters)
    assert plain.flops.tolist() == list(SHAPE.flops(MAX_LENGTH))
    lengths = read_answers(folder / "DE.parquet").lengths
    dynamic = exits[exits.inference == "L"]
    flops = np.mean([SHAPE.flops(length) for length in lengths.tolist()], axis=0)
    assert dynamic.flops.tolist() == pytest.approx(flops.tolist())
    assert dynamic.flops_relative.tolist() == pytest.approx((flops / ORIGINAL.flops(MAX_LENGTH)[-1]).tolist())
    # Leaving always at the first exit, or never early, are points of both files.
    for place in (0, -1):
        shared = ["accuracy", "time_ms", "time_relative", "flops_relative", "flops"]
        point, row = table[table.inference == ""].iloc[place], plain.iloc[place]
        assert point[shared].tolist() == pytest.approx(row[shared].tolist())


def test_dynamic_length_changes_the_cost_and_nothing_else(folder, tmp_path):
    table, _ = replayed(folder, tmp_path / "DE.csv")
    rows = dict(list(table.groupby("inference")))
    for without, with_l in (("", "L"), ("Q", "LQ")):
        for column in ("accuracy", "mean_exit_layer", "threshold", "kernels"):
            assert rows[without][column].tolist() == rows[with_l][column].tolist()
        assert (rows[with_l].flops_relative.to_numpy() < rows[without].flops_relative.to_numpy()).all()


def test_a_single_exit_has_one_row_without_threshold(folder, tmp_path):
    for confidence in ("max_probability", "patience"):
        table, details = replayed(folder, tmp_path / "O.csv", "O", confidence, patiences=[1, 2, 9])
        assert table.inference.tolist() == list(INFERENCE)
        assert table.threshold.isna().all()
        assert table.flops_relative[0] == 1
        assert details["confidence"] is None
        assert details["parameters"]["thresholds"] is None


def test_patience_has_a_row_for_each_number_of_exits(folder, tmp_path):
    table, details = replayed(folder, tmp_path / "DE.csv", confidence="patience")
    plain = table[table.inference == ""]
    assert plain.threshold.tolist() == [1, 2, 3]
    assert plain.mean_exit_layer.iloc[[0, -1]].tolist() == [1, 3]
    assert 2 < plain.mean_exit_layer.iloc[1] < 3
    assert details["confidence"] == "patience"


def test_a_patience_larger_than_the_exits_is_refused(folder, tmp_path):
    with pytest.raises(PipeOpsError, match="patiences: 4, but a model here has 3 exits"):
        replayed(folder, tmp_path / "DE.csv", confidence="patience", patiences=[2, 4])
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_what_the_analyses_read(folder, tmp_path):
    path = tmp_path / "sst2/DE/seed1.csv"
    table, details = replayed(folder, path)
    assert read_measurements(path)["time_relative"].tolist() == table["time_relative"].tolist()
    assert pool([path])["seed"].tolist() == [1] * len(table)
    assert len(pool_exits([path])) == 12
    assert details["rows"] == len(table)
    assert details["parameters"]["seed"] == 1
    assert {"pipeops", "commit", "python", "packages", "cpu", "finished", "answers"} <= set(details)


def test_the_same_inputs_give_the_same_bytes(folder, tmp_path):
    for name in ("first", "second"):
        replayed(folder, tmp_path / f"{name}.csv")
    for suffix in (".csv", ".exits.csv", ".json"):
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def refused(folder, message, *, answers=None, prices=None):
    replay = replay_of(folder)
    with pytest.raises(PipeOpsError, match=message) as caught:
        Replay(answers or replay.answers, prices or replay.prices)
    assert "\n" not in str(caught.value)


def test_prices_of_another_shape_are_refused(folder, tmp_path):
    other = tiny_shape(vocab_size=60, heads_per_layer=(4, 2, 4))
    prices = read_prices(write_prices(tmp_path / "PE.csv", other))
    message = (
        r"PE\.csv: prices of another shape than .*DE\.parquet: heads_per_layer is \(4, 2, 4\), there \(4"
    )
    refused(folder, message, prices=prices)


def test_prices_for_other_inputs_are_refused(folder):
    replay = replay_of(folder)
    refused(
        folder,
        r"priced with max_length 12, .*DE\.parquet has 10; price this shape again",
        answers=replace(replay.answers, max_length=10),
    )
    refused(
        folder,
        r"priced for inputs of 3 to 12 tokens, .*DE\.parquet has 2 to 9; price again for these lengths",
        answers=replace(replay.answers, lengths=np.append(replay.answers.lengths[1:], 2)),
    )
