import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import tiny_model, write_examples

from pipeops.analysis.runs import read_curve
from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.measuring.measure import measure
from pipeops.models.shape import ModelShape
from pipeops.onnx.export import export
from pipeops.pipeline import INFERENCE
from pipeops.settings import MeasuringSection

SETTINGS = MeasuringSection(
    thresholds=[0, 0.6, 0.7, 0.8, 0.9, 1.01], timing_rounds=5, check_thresholds=2, check_examples=20
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_examples(folder / "validation.parquet", rows=60)
    for name, model in {"O": tiny_model(), "E": tiny_model(exits=True, seed=5)}.items():
        model.save_pretrained(folder / f"{name}-torch")
        export(folder / f"{name}-torch", folder / name)
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
        "flops", "parameters", "parameters_relative", "kernels",
    ]  # fmt: skip
    assert table.inference.fillna("").unique().tolist() == list(INFERENCE)
    plain = table[table.inference.isna()]
    for row in plain.itertuples():
        correct, layers = [], []
        for ids, label in zip(split.input_ids, split.label_ids, strict=True):
            with torch.no_grad():
                logits = model(torch.from_numpy(ids)[None]).exit_logits
            confident = [k for k in range(3) if logits[k].softmax(-1).max() >= row.threshold] or [3]
            layers.append(confident[0] + 1)
            correct.append(int(logits[confident[0]].argmax()) == label)
        assert row.accuracy == pytest.approx(np.mean(correct))
        assert row.mean_exit_layer == pytest.approx(np.mean(layers))
    assert plain.mean_exit_layer.is_monotonic_increasing
    assert plain.mean_exit_layer.iloc[[0, -1]].tolist() == [1, 4]
    assert len(set(plain.mean_exit_layer)) > 3  # the thresholds in between do something
    assert details["parameters"]["seed"] == 1
    assert details["cpu"]["cores"] >= 1


def test_sizes_are_those_of_the_shape_and_exits_have_their_own_rows(exported, tmp_path):
    table, _ = measured(exported, tmp_path / "E.csv", "E")
    exits = pd.read_csv(tmp_path / "E.exits.csv").fillna({"inference": ""})
    assert exits.columns.tolist() == [
        "inference", "exit_layer", "accuracy", "time_ms", "time_relative", "flops_relative", "flops",
        "parameters", "parameters_relative", "kernels",
    ]  # fmt: skip
    shape = ModelShape.from_checkpoint(exported / "E-torch")
    original = ModelShape.from_checkpoint(exported / "O-torch")
    assert set(table.parameters) == {shape.parameters}
    assert table.parameters_relative[0] == pytest.approx(shape.parameters / original.parameters)
    plain = exits[exits.inference == ""]
    assert plain.exit_layer.tolist() == [1, 2, 3, 4]
    assert plain.parameters.tolist() == list(shape.exit_parameters)
    max_length = load_tokenised(exported / "validation.parquet").max_length
    assert plain.flops.tolist() == list(shape.flops(max_length))
    # Leaving always at the first exit, or never early, are points of both files.
    for threshold, row in ((0, plain.iloc[0]), (-1, plain.iloc[-1])):
        point = table[table.inference.isna()].iloc[threshold]
        columns = ["accuracy", "time_ms", "time_relative", "flops_relative", "flops"]
        assert point[columns].tolist() == pytest.approx(row[columns].tolist())


def test_dynamic_length_changes_the_time_and_nothing_else(exported, tmp_path):
    table, details = measured(exported, tmp_path / "E.csv", "E")
    rows = dict(list(table.fillna({"inference": ""}).groupby("inference")))
    for without, with_l in (("", "L"), ("Q", "LQ")):
        for column in ("accuracy", "mean_exit_layer", "threshold", "kernels"):
            assert rows[without][column].tolist() == rows[with_l][column].tolist()
        assert (rows[with_l].flops_relative.to_numpy() < rows[without].flops_relative.to_numpy()).all()
    split = load_tokenised(exported / "validation.parquet")
    shape = ModelShape.from_checkpoint(exported / "E-torch")
    mean_flops = np.mean([shape.flops(len(ids))[-1] for ids in split.input_ids])
    assert rows["L"].flops_relative.iloc[-1] == pytest.approx(mean_flops / tiny_flops(exported))
    lengths = sorted(len(ids) for ids in split.input_ids)
    assert details["timed_lengths"][""] == [12]
    assert details["timed_lengths"]["L"][0] == lengths[0]
    assert details["timed_lengths"]["L"][-1] == lengths[-1]


def tiny_flops(exported):
    return ModelShape.from_checkpoint(exported / "O-torch").flops(12)[-1]


def test_every_row_says_which_kernels(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeops.hardware.cpu", lambda: {"instructions": ["avx2", "avx512_vnni"]})
    table, details = measured(exported, tmp_path / "E.csv", "E")
    kernels = table.fillna({"inference": ""}).groupby("inference").kernels.unique()
    assert {name: found.tolist() for name, found in kernels.items()} == {
        "": ["fp32"], "L": ["fp32"], "Q": ["AVX512-VNNI"], "LQ": ["AVX512-VNNI"],
    }  # fmt: skip
    assert details["int8_kernels"] == "AVX512-VNNI"
    assert "Q runs on AVX512-VNNI int8 kernels" in capsys.readouterr().out


def test_a_cpu_without_int8_instructions_measures_and_says_so(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeops.hardware.cpu", lambda: {"instructions": ["avx2"]})
    table, _ = measured(exported, tmp_path / "O.csv", "O")
    assert table.kernels.tolist() == ["fp32", "fp32", "generic", "generic"]
    assert "no int8 dot products" in capsys.readouterr().out


def test_relative_costs_are_those_of_the_exits(exported, tmp_path):
    table, details = measured(exported, tmp_path / "E.csv", "E")
    plain = table[table.inference.isna()]
    [relative] = details["exit_time_relative"][""]
    assert plain.time_relative.iloc[0] == pytest.approx(relative[0])
    assert plain.time_relative.iloc[-1] == pytest.approx(relative[-1])
    assert (table.time_ms / table.time_relative).to_numpy() == pytest.approx(details["original_ms"])
    checks = details["checks"]
    assert [one["differing_exits"] for one in checks] == [0] * 8
    assert [one["inference"] for one in checks] == ["", "", "L", "L", "Q", "Q", "LQ", "LQ"]
    assert {one["threshold"] for one in checks} < set(SETTINGS.thresholds)


def test_a_single_exit_has_one_row_without_threshold(exported, tmp_path):
    table, details = measured(exported, tmp_path / "O.csv", "O")
    assert table.inference.fillna("").tolist() == list(INFERENCE)
    assert table.threshold.isna().all()
    assert table.flops_relative[0] == 1
    assert [one["threshold"] for one in details["checks"]] == [None] * 4
    assert read_curve(tmp_path / "O.csv").accuracy.tolist() == [table.accuracy[0]]


def test_the_csv_is_a_curve_and_a_lost_row_is_noticed(exported, tmp_path):
    path = tmp_path / "E.csv"
    table, _ = measured(exported, path, "E")
    assert read_curve(path).time[0] == table.time_relative[table.inference.isna()].min()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(PipeOpsError, match="has 22 rows where 24 were measured; delete it and run again"):
        read_curve(path)


def test_graphs_that_disagree_are_refused(exported, tmp_path):
    mixed = tmp_path / "mixed"
    tiny_model(exits=True, seed=6).save_pretrained(tmp_path / "other")
    export(tmp_path / "other", mixed)
    (mixed / "model.onnx").write_bytes((exported / "E" / "model.onnx").read_bytes())
    settings = SETTINGS.model_copy(update={"thresholds": [0.6, 0.7, 0.8], "check_thresholds": 3})
    with pytest.raises(PipeOpsError, match="left at another exit than replayed; export the model again"):
        measure(mixed, exported / "O", exported / "validation.parquet", tmp_path / "x.csv", settings=settings)
    assert not (tmp_path / "x.csv").exists()
