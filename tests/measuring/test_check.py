"""Really running next to a replay."""

import json
import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
from helpers import unsealed
from measured import ANYWHERE, ORIGINAL, SHAPE, examples, exported, write_prices

from pipeops.errors import PipeOpsError
from pipeops.measuring.answers import read_answers
from pipeops.measuring.check import check, near_threshold
from pipeops.measuring.evaluate import evaluate
from pipeops.measuring.prices import read_prices
from pipeops.measuring.replay import Replay
from pipeops.onnx.graphs import with_metadata
from pipeops.pipeline import INFERENCE
from pipeops.settings import CheckSection

LENIENT = CheckSection(thresholds=2, examples=5, tolerance=1e6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    examples(folder, rows=40)
    exported(folder / "O", ORIGINAL)
    exported(folder / "DE", SHAPE)
    for name in ("O", "DE"):
        evaluated(folder, name)
    write_prices(folder / "DE.csv")
    write_prices(folder / "O.csv", ORIGINAL)
    return folder


def evaluated(folder, name, data="validation.parquet"):
    evaluate(folder / name, folder / data, folder / f"{name}.parquet", dataset="sst2", pipeline=name, seed=1)


def checked(folder, output, name="DE", *, model=None, settings=LENIENT, **changes):
    options = {"confidence": "max_probability", "thresholds": [0, 0.55, 0.6, 0.7, 1.01]} | changes
    check(
        Replay(read_answers(folder / f"{name}.parquet"), read_prices(folder / f"{name}.csv")),
        model or folder / name,
        folder / "O",
        options.pop("data", folder / "validation.parquet"),
        output,
        settings=settings,
        machine=ANYWHERE,
        **options,
    )
    return pd.read_csv(output).fillna({"inference": ""}), json.loads(output.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    ("confidence", "thresholds"), [("max_probability", [0, 0.55, 0.6, 0.7, 1.01]), ("patience", [1, 2, 3])]
)
def test_every_variant_is_run_at_some_thresholds(folder, tmp_path, confidence, thresholds):
    table, details = checked(folder, tmp_path / "x.csv", confidence=confidence, thresholds=thresholds)
    assert table.inference.tolist() == [letters for letters in INFERENCE for _ in range(2)]
    assert set(table.threshold) <= set(thresholds)
    assert table.differing_exits.tolist() == [0] * 8
    assert table.examples.tolist() == [5] * 8
    assert (table[["time_relative_replayed", "time_relative_run"]] > 0).all(axis=None)
    assert list(details["time_off"]) == list(INFERENCE)
    assert details["rows"] == 8
    assert details["confidence"] == confidence


def test_a_single_exit_is_run_once_per_variant(folder, tmp_path):
    table, _ = checked(folder, tmp_path / "x.csv", "O", thresholds=[float("nan")])
    assert table.threshold.isna().tolist() == [True] * 4
    assert table.differing_exits.tolist() == [0] * 4


def test_a_graph_of_another_seed_is_refused_whatever_exits_decide_by(folder, tmp_path):
    other = tmp_path / "DE"
    shutil.copytree(folder / "DE", other)
    for path in unsealed(other).glob("model*.onnx"):
        path.write_bytes(
            with_metadata(onnx.load(path), {"pipeops.seed": "2"}).SerializeToString(deterministic=True)
        )
    for confidence, threshold in (("max_probability", 0.6), ("patience", 2)):
        with pytest.raises(PipeOpsError, match="DE: seed is 2, where 1 is wanted"):
            checked(folder, tmp_path / "x.csv", model=other, confidence=confidence, thresholds=[threshold])


def test_exits_that_differ_are_an_error(folder, tmp_path):
    other = exported(tmp_path / "DE", SHAPE, seed=7)
    message = (
        r"at threshold 0\.7 \d+ of 40 examples left at another exit than .*; export and evaluate the model"
    )
    settings = LENIENT.model_copy(update={"thresholds": 1, "examples": 40})
    with pytest.raises(PipeOpsError, match=message) as caught:
        checked(folder, tmp_path / "x.csv", model=other, settings=settings, thresholds=[0.7])
    assert "\n" not in str(caught.value)


def test_a_price_that_fails_its_check_is_an_error(folder, tmp_path):
    table = pd.read_csv(folder / "DE.csv")
    wrong = tmp_path / "DE.csv"
    for name in ("DE.json", "DE.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    table["time_relative"] *= 1000
    table.to_csv(wrong, index=False)
    settings = LENIENT.model_copy(update={"tolerance": 0.5, "thresholds": 1, "examples": 2})
    message = (
        r"DE: run as it is, its time is -\d+\.\d% off what .*DE\.csv says, more than check\.tolerance, 50%; "
        "price again on a quiet machine$"
    )
    with pytest.raises(PipeOpsError, match=message) as caught:
        check(
            Replay(read_answers(tmp_path / "DE.parquet"), read_prices(wrong)),
            folder / "DE",
            folder / "O",
            folder / "validation.parquet",
            tmp_path / "x.csv",
            confidence="max_probability",
            thresholds=[0.6],
            settings=settings,
            machine=ANYWHERE,
        )
    assert "\n" not in str(caught.value)


def test_examples_that_were_not_evaluated_are_refused(folder, tmp_path):
    other = examples(tmp_path, rows=39)
    with pytest.raises(PipeOpsError, match=r"not the examples that .*DE\.parquet answers; evaluate again"):
        checked(folder, tmp_path / "x.csv", data=other)


def test_what_rounding_may_send_elsewhere():
    probabilities = np.array([[[0.6, 0.4], [0.9, 0.1]], [[0.6001, 0.3999], [0.9, 0.1]]])
    logits = np.log(probabilities).astype(np.float32)
    assert near_threshold(logits, "max_probability", 0.6, rounding=1e-5).tolist() == [True, False]
    assert near_threshold(logits, "max_probability", 0.6, rounding=1e-2).tolist() == [True, True]
    # The last exit is left at whatever its confidence.
    assert near_threshold(logits, "max_probability", 0.9, rounding=1e-2).tolist() == [False, False]
    tied = np.array([[[0.0, 1.0], [0.01, 0.0]], [[0.0, 1.0], [1.0, 0.0]]], dtype=np.float32)
    assert near_threshold(tied, "patience", 2, rounding=1e-2).tolist() == [True, False]
