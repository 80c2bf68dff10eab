"""The benchmark of engines runs, and says of every engine what it measured or why it did not."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from common import interleaved, turns
from engine_kinds import ENGINES, FEWEST, Sources, calibration_rows, choose_policy
from export_models import tiny_shape, write_checkpoint
from helpers import ROOT, tiny_model, write_examples

from pipeops.errors import PipeOpsError
from pipeops.onnx.export import export

NAMES = [name for name in ENGINES if name.startswith(("PipeOps int8", "ONNX Runtime int8", "OpenVINO fp32"))]


def run(script, *arguments, check=True):
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the benchmark needs of a study: O, E and the tokenised data."""
    folder = tmp_path_factory.mktemp("results")
    for name, exits in (("O", False), ("E", True)):
        tiny_model("bert", exits=exits).save_pretrained(folder / f"models/sst2/{name}/seed1")
    for split in ("train", "validation"):
        write_examples(folder / f"data/sst2/{split}.parquet", pad_token_id=0)
    return folder


@pytest.mark.slow
def test_a_quick_run_counts_texts_a_second(results, tmp_path):
    effort = ["--texts", 6, "--rounds", 2, "--threads", 1, "--batch-tokens", 0, 40]
    pairs = results / "data/sst2/train.parquet"
    arguments = ["--output", tmp_path, "--engines", "PipeOps int8", "--pairs", pairs, *effort]
    out = run("throughput.py", results, *arguments).stdout
    page = (tmp_path / "throughput.md").read_text()
    for what in ("sentences", "pairs"):
        assert f"Texts a second: 6 {what}" in out
        assert f"Texts a second: 6 {what}" in page
    rows = re.findall(r"^\| PipeOps int8.*$", page, re.MULTILINE)
    assert len(rows) == 6
    assert all(re.search(r"\| \d+ \(\d+\.\d\d\) +\| \d+ \(\d+\.\d\d\)", row) for row in rows)


@pytest.mark.slow
def test_a_quick_run_measures_every_engine_or_says_why_not(results, tmp_path):
    effort = [
        "--lengths",
        8,
        "--varied",
        "4-8",
        "--batches",
        2,
        "--batch-length",
        6,
        "--rounds",
        2,
        "--starts",
        1,
        "--threads",
        1,
    ]
    out = run("engines.py", results, "--output", tmp_path, "--engines", *NAMES, *effort).stdout
    kept = json.loads((tmp_path / "engines.json").read_text())
    assert sorted([*kept["engines"], *kept["skipped"]]) == sorted(NAMES)
    assert all(f"skipped: {name}: {why}" in out for name, why in kept["skipped"].items())
    assert {"PipeOps int8", "ONNX Runtime int8"} <= kept["engines"].keys()
    for found in kept["engines"].values():
        assert 0 <= found["accuracy"] <= 100
        assert min(found["load_s"], found["file_mib"]) > 0
    table = pd.read_csv(tmp_path / "engines.csv")
    assert set(table["column"]) == {"1 x 8", "1 x 4-8", "2 x 6", "sentences"}
    assert (table["ms"] > 0).all()
    assert (table["rounds"] == 2).all()
    base = table[table["engine"] == "PipeOps int8"]
    assert len(base) == 4
    assert (base["ratio"] == 1).all()
    assert ((table["engine"] == "PipeOps int8, all exits") & (table["column"] == "2 x 6")).any()
    assert re.search(r"^\| PipeOps int8, all exits +\| [\d.]+( +\| [\d.]+ \([\d.]+\)){2}", out, re.MULTILINE)


def test_an_engine_or_a_length_that_there_is_not_is_one_line(results, tmp_path):
    for asked, said in (
        (
            ["--engines", "Fastest", "--lengths", "8", "--varied", "4-8", "--batch-length", "8"],
            "--engines: none begins with 'Fastest'; there are PipeOps fp32, ",
        ),
        (["--lengths", "900"], "--lengths: 900 tokens, the model takes at most 24"),
        (["--lengths", "8", "--varied", "8-4"], "--varied: '8-4' is no span of tokens"),
        (["--lengths", "8", "--varied", "4-8-x"], "--varied: '4-8-x' is no span of tokens"),
        (["--lengths", "8", "--varied", "4-25"], "--varied: 25 tokens, the model takes at most 24"),
    ):
        failed = run("engines.py", results, "--output", tmp_path, *asked, check=False)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("script", ["engines.py", "throughput.py", "node_times.py"])
@pytest.mark.parametrize("option", ["--threads", "--rounds"])
def test_numbers_that_measure_nothing_are_refused(results, tmp_path, script, option):
    option = "--runs" if (script, option) == ("node_times.py", "--rounds") else option
    where = [] if script == "node_times.py" else ["--output", tmp_path / "out"]
    for number in ("0", "-3", "x"):
        failed = run(script, results, *where, f"{option}={number}", check=False)
        assert failed.returncode == 2
        assert f"argument {option}: '{number}' is no whole number from 1 on" in failed.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("{", "engines.json: damaged"),
        ("[]", "engines.json: damaged"),
        ('{"times": {"1 x 8": {}}}', "times without PipeOps int8"),
        (
            '{"times": {}, "model": "another"}',
            "engines.json: measured with another model; name another --output",
        ),
    ],
)
def test_what_was_measured_before_must_be_whole_and_of_the_same_model(results, tmp_path, kept, said):
    (tmp_path / "engines.json").write_text(kept)
    small = ["--lengths", "8", "--varied", "4-8", "--batch-length", "8"]
    failed = run("engines.py", results, "--output", tmp_path, *small, check=False)
    assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
    assert said in failed.stderr


def test_an_engine_that_is_not_installed_names_the_command(monkeypatch):
    monkeypatch.setattr("engine_kinds.find_spec", lambda _: None)
    said = "openvino, nncf not installed; pip install -r benchmarks/engines-requirements.txt"
    assert said in ENGINES["OpenVINO int8, rest fp32"].missing
    assert ENGINES["PipeOps int8"].missing == ""


def test_calibration_wants_enough_rows_of_two_classes(tmp_path):
    path = write_examples(tmp_path / "train.parquet", rows=FEWEST - 1)
    with pytest.raises(
        PipeOpsError, match=f"{FEWEST - 1} rows of 2 classes; static scales need {FEWEST} rows"
    ):
        calibration_rows(Sources(path, path, path, path, within=1))
    write_examples(path, rows=FEWEST)
    assert len(calibration_rows(Sources(path, path, path, path, within=1))) == FEWEST


def test_the_policy_is_the_lowest_threshold_that_is_accurate_enough():
    # Of four examples the first exit is right on three; it is sure of the wrong one too, but less than 0.9.
    first = np.array([[0, 4], [0, 4], [0, 4], [0, 1.5]])
    last = np.array([[0, 9], [0, 9], [0, 9], [9, 0]])
    logits, right = np.stack([first, last], axis=1).astype(np.float32), np.array([1, 1, 1, 0])
    some = choose_policy(logits, right, least=0.75, layers=(1, 3))
    assert (some["threshold"], some["accuracy"], some["mean_exit_layer"]) == (0, 0.75, 1)
    every = choose_policy(logits, right, least=1.0, layers=(1, 3))
    assert (every["accuracy"], every["mean_exit_layer"]) == (1.0, 1.5)
    assert 0.82 < every["threshold"] <= 0.98
    assert choose_policy(logits, ~right + 2, least=1.0, layers=(1, 3))["mean_exit_layer"] == 3


def test_after_so_many_seconds_three_rounds_are_enough():
    runs = {"a": lambda: None, "b": lambda: None}
    assert {name: len(times) for name, times in interleaved(runs, 9).items()} == {"a": 9, "b": 9}
    assert {name: len(times) for name, times in interleaved(runs, 9, seconds=0).items()} == {"a": 3, "b": 3}
    assert len(interleaved(runs, 2, seconds=0)["a"]) == 2


def test_every_run_comes_first_once_in_turn():
    assert list(turns(["a", "b", "c"], 4)) == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_where_time_goes_is_a_table_of_operators(tmp_path):
    export(write_checkpoint(tmp_path / "checkpoint", tiny_shape()), tmp_path)
    out = run(
        "node_times.py", tmp_path / "model-int8.onnx", "--lengths", 8, 16, "--runs", 3, "--threads", 1
    ).stdout
    rows = re.findall(r"^\| (\w+) +\| [\d.]+ \((\d+)%\) +\| [\d.]+ \((\d+)%\) +\|$", out, re.MULTILINE)
    names = [name for name, *_ in rows]
    assert {"QAttention", "LayerNormalization"} <= set(names)
    assert "If" not in names
    for column in (1, 2):
        assert 90 <= sum(int(row[column]) for row in rows) <= 110
    for graph, length in (("none.onnx", 8), ("model-int8.onnx", 900)):
        failed = run("node_times.py", tmp_path / graph, "--lengths", length, check=False)
        assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
