import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model, write_examples

from pipeops.config import MeasuringSection
from pipeops.curves import read_curve
from pipeops.errors import PipeOpsError
from pipeops.export import export
from pipeops.measure import check, exit_costs, measure
from pipeops.runtime import Answer, force_exit
from pipeops.shape import ModelShape
from pipeops.tokenised import load_tokenised

SETTINGS = MeasuringSection(
    thresholds=[0, 0.6, 0.7, 0.8, 0.9, 1.01], timing_rounds=5, check_thresholds=2, check_examples=20
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_examples(folder / "validation.parquet", rows=60)
    for name, model in {"O": tiny_model(), "E": tiny_model(exits=True, seed=5)}.items():
        model.save_pretrained(folder / f"{name}-torch")
        export(
            folder / f"{name}-torch",
            model=folder / name / "model.onnx",
            profile=folder / name / "profile.onnx",
        )
    return folder


def measured(exported, output, name, settings=SETTINGS):
    measure(
        exported / name, exported / "O", exported / "validation.parquet", output, settings=settings, seed=1
    )
    return pd.read_csv(output), json.loads(output.with_suffix(".json").read_text())


def test_accuracy_and_exits_equal_a_replay_in_torch(exported, tmp_path):
    table, details = measured(exported, tmp_path / "E.csv", "E")
    model = tiny_model(exits=True, seed=5)
    split = load_tokenised(exported / "validation.parquet")
    assert table.columns.tolist() == [
        "inference", "threshold", "accuracy", "time_ms", "time_relative", "mean_exit_layer", "flops_relative",
    ]  # fmt: skip
    for row in table.itertuples():
        correct, layers = [], []
        for ids, label in zip(split.input_ids, split.label_ids, strict=True):
            with torch.no_grad():
                logits = model(torch.from_numpy(ids)[None]).exit_logits
            confident = [k for k in range(3) if logits[k].softmax(-1).max() >= row.threshold] or [3]
            layers.append(confident[0] + 1)
            correct.append(int(logits[confident[0]].argmax()) == label)
        assert row.accuracy == pytest.approx(np.mean(correct))
        assert row.mean_exit_layer == pytest.approx(np.mean(layers))
    assert table.mean_exit_layer.is_monotonic_increasing
    assert table.mean_exit_layer.iloc[[0, -1]].tolist() == [1, 4]
    assert len(set(table.mean_exit_layer)) > 3  # the thresholds in between do something
    assert details["parameters"]["seed"] == 1
    assert details["cpu"]["cores"] >= 1


def test_relative_costs_are_those_of_the_exits(exported, tmp_path):
    table, details = measured(exported, tmp_path / "E.csv", "E")
    relative = details["exit_time_relative"]
    assert table.time_relative.iloc[0] == pytest.approx(relative[0])
    assert table.time_relative.iloc[-1] == pytest.approx(relative[-1])
    assert (table.time_ms / table.time_relative).to_numpy() == pytest.approx(details["original_ms"])
    assert [one["differing_exits"] for one in details["checks"]] == [0, 0]
    assert {one["threshold"] for one in details["checks"]} < set(SETTINGS.thresholds)


def test_a_single_exit_has_one_row_without_threshold(exported, tmp_path):
    table, details = measured(exported, tmp_path / "O.csv", "O")
    assert len(table) == 1
    assert np.isnan(table.threshold[0])
    assert table.flops_relative[0] == 1
    assert details["checks"] == []
    curve = read_curve(tmp_path / "O.csv")
    assert curve.accuracy.tolist() == table.accuracy.tolist()


def test_the_csv_is_a_curve_and_a_lost_row_is_noticed(exported, tmp_path):
    path = tmp_path / "E.csv"
    table, _ = measured(exported, path, "E")
    assert read_curve(path).time[0] == table.time_relative.min()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(PipeOpsError, match="has 4 rows where 6 were measured; delete it and run again"):
        read_curve(path)


def test_graphs_that_disagree_are_refused(exported, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    tiny_model(exits=True, seed=6).save_pretrained(tmp_path / "other")
    export(tmp_path / "other", model=tmp_path / "unused.onnx", profile=mixed / "profile.onnx")
    (mixed / "model.onnx").write_bytes((exported / "E" / "model.onnx").read_bytes())
    settings = SETTINGS.model_copy(update={"thresholds": [0.6, 0.7, 0.8], "check_thresholds": 3})
    with pytest.raises(PipeOpsError, match="left at another exit than replayed; export the model again"):
        measure(mixed, exported / "O", exported / "validation.parquet", tmp_path / "x.csv", settings=settings)
    assert not (tmp_path / "x.csv").exists()


class Clockwork:
    """A model whose exits take known times on a clock of its own."""

    def __init__(self, clock, milliseconds):
        self.clock, self.milliseconds = clock, milliseconds
        layers = tuple(range(1, len(milliseconds) + 1))
        values = dict.fromkeys(ModelShape.__dataclass_fields__, 1) | {"exit_layers": layers}
        self.shape = ModelShape(**values)

    def run(self, ids, mask, thresholds=()):
        exit_index = next((i for i, t in enumerate(thresholds) if t <= 0.5), len(self.milliseconds) - 1)
        self.clock[0] += self.milliseconds[exit_index] * 1e6 * self.clock[1]
        return Answer(np.zeros((1, 2)), exit_index + 1)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0, 1.0]  # nanoseconds, and how slow the machine is at present
    monkeypatch.setattr("time.perf_counter_ns", lambda: int(now[0]))
    return now


def test_costs_by_a_clock_that_is_known(clock):
    target, baseline = Clockwork(clock, [1.0, 2.0, 4.5]), Clockwork(clock, [5.0])
    costs = exit_costs(target, baseline, [(np.zeros((1, 4)), np.ones((1, 4)))] * 7)
    assert costs.relative.tolist() == pytest.approx([0.2, 0.4, 0.9])
    assert costs.original_ms == pytest.approx(5.0)


def test_a_drifting_machine_cancels_out(clock):
    target, baseline = Clockwork(clock, [1.0, 4.0]), Clockwork(clock, [5.0])

    def slower_every_round():
        for _ in range(9):
            clock[1] *= 1.5
            yield np.zeros((1, 4)), np.ones((1, 4))

    costs = exit_costs(target, baseline, _Rounds(slower_every_round))
    assert costs.relative.tolist() == pytest.approx([0.2, 0.8])


class _Rounds(list):
    def __init__(self, make):
        super().__init__([(np.zeros((1, 4)), np.ones((1, 4)))])
        self.make = make

    def __iter__(self):
        return self.make()


def test_check_compares_replay_and_run(clock):
    target, baseline = Clockwork(clock, [1.0, 4.0]), Clockwork(clock, [5.0])
    inputs = [(np.zeros((1, 4)), np.ones((1, 4)))] * 4
    confidence = np.array([[0.9, 1], [0.1, 1], [0.2, 1], [0.9, 1]], dtype=np.float32)
    result = check(target, baseline, inputs, confidence, np.array([0.2, 0.8]), threshold=0.4)
    # The clockwork always leaves at layer 1, as 0.4 <= 0.5; two examples should have gone on.
    assert result.differing_exits == 2
    assert result.time_relative_replayed == pytest.approx(0.5)
    assert result.time_relative_run == pytest.approx(0.2)


def test_forced_exits_cover_the_first_and_the_last():
    assert force_exit(1, [1, 2, 3]).tolist() == [0.0, 2.0]
    assert force_exit(3, [1, 2, 3]).tolist() == [2.0, 2.0]
