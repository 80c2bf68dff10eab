"""Scores of deployed folders, against what their own script answers."""

import json

import numpy as np
import pandas as pd
import pytest
from deployed import (
    PAIR,
    copied,
    deployed,
    random_texts,
    read_policy,
    results_of_ep,  # noqa: F401
    write_study,
)
from measured import MAX_LENGTH

from pipeops.errors import PipeOpsError
from pipeops.measuring.classes import ACCURACY, MACRO_F1, counts_of
from pipeops.measuring.score import TIMED, score, score_text
from pipeops.onnx.classify import Classifier
from pipeops.settings import MeasuringSection

ROWS = 130


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployed") / "EPLQ"
    return deployed(results, "EPLQ", folder, thresholds=(0.8, 0.85, 0.9))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "sentence": [text for (text,) in random_texts(ROWS, pair=False)],
            "label": np.where(rng.random(ROWS) < 0.7, "yes", "no"),
        }
    )
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    table.to_csv(path, index=False)
    return path


def test_the_report_is_that_of_the_answers_of_the_script(folder, rows):
    scored, classifier = score(folder, rows), Classifier(folder)
    table = pd.read_csv(rows, keep_default_na=False)
    answers = [classifier(text) for text in table["sentence"]]
    said = np.array([answer.label for answer in answers])
    report = scored.report()
    assert report["accuracy"] == pytest.approx((said == table["label"]).mean())
    expected = [
        [int(((table["label"] == a) & (said == b)).sum()) for b in ("no", "yes")] for a in ("no", "yes")
    ]
    assert report["confusion"] == expected
    assert np.unique(said).tolist() == ["no", "yes"]
    assert report["macro_f1"] == pytest.approx(float(MACRO_F1.of(counts_of(np.array(expected)))))
    assert report["mean_exit_layer"] == pytest.approx(np.mean([answer.exit_layer for answer in answers]))
    assert 1 < report["mean_exit_layer"] < 4
    assert report["truncated"] == sum(answer.truncated for answer in answers) > 0
    assert (report["rows"], report["timed_rows"], report["labels_matched_by"]) == (ROWS, TIMED, "name")


@pytest.mark.parametrize(
    ("confidence", "threshold"),
    [("max_probability", 0.7), ("entropy", 0.6), ("patience", 2), ("patience", 4)],
)
@pytest.mark.parametrize("inference", ["", "LQ"])
def test_a_point_of_the_curve_is_the_model_deployed_with_that_threshold(
    tmp_path, rows, confidence, threshold, inference
):
    write_study(tmp_path, "EP", answers=False, prices=False)
    at, elsewhere = (
        deployed(tmp_path, f"EP{inference}", tmp_path / name, confidence=confidence, thresholds=[at])
        for name, at in (("at", threshold), ("elsewhere", 1))
    )
    scored, classifier = score(elsewhere, rows), Classifier(at)
    table = pd.read_csv(rows, keep_default_na=False)
    answers = [classifier(text) for text in table["sentence"]]
    point = scored.point([threshold] * 3)
    assert point["accuracy"] == (np.array([answer.label for answer in answers]) == table["label"]).mean()
    assert point["mean_exit_layer"] == np.mean([answer.exit_layer for answer in answers])
    used = [1, 2, 3, 4] if confidence == "patience" else MeasuringSection().thresholds
    assert [point["threshold"] for point in scored.curve()] == used
    # The last threshold never leaves early, and costs most.
    first, *_, last = scored.curve()
    assert (first["mean_exit_layer"], last["mean_exit_layer"]) == (1, 4)
    never = scored.matrix([2 if confidence != "patience" else 4] * 3)
    assert ACCURACY.of(counts_of(never)) == last["accuracy"]
    assert scored.time_ms.shape == (TIMED, 4)
    assert (scored.time_ms > 0).all()


def test_a_model_without_exits_has_no_curve(tmp_path, rows):
    write_study(tmp_path, "D", answers=False, prices=False, layers=2)
    scored = score(deployed(tmp_path, "DL", tmp_path / "out", thresholds=()), rows)
    assert scored.curve() == []
    assert scored.report()["mean_exit_layer"] == 2
    assert "as deployed" in score_text(scored)


def test_pairs_and_other_columns(tmp_path):
    write_study(tmp_path, "EP", family="bert", dataset=PAIR, answers=False, prices=False)
    folder = deployed(tmp_path, "EPL", tmp_path / "out", dataset=PAIR, thresholds=(0.8, 0.85, 0.9))
    firsts, seconds = zip(*random_texts(20, pair=True), strict=True)
    table = pd.DataFrame({"sentence1": firsts, "sentence2": seconds, "label": [0, 1] * 10})
    table.to_parquet(tmp_path / "rows.parquet")
    scored = score(folder, tmp_path / "rows.parquet")
    assert scored.matched_by == "id"
    assert scored.label_ids.tolist() == [0, 1] * 10
    table.columns = ["q", "a", "is"]
    table.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    again = score(folder, tmp_path / "rows.jsonl", text=["q", "a"], label="is")
    np.testing.assert_array_equal(again.logits, scored.logits)
    with pytest.raises(PipeOpsError, match=r"--text: 1 given, the model takes 2 \(sentence1, sentence2\)"):
        score(folder, tmp_path / "rows.jsonl", text=["q"])


def test_the_report_is_json_without_nan_and_the_text_has_every_part(folder, rows, tmp_path):
    table = pd.read_csv(rows, keep_default_na=False)
    table[table["label"] == "no"].to_csv(tmp_path / "no.csv", index=False)
    report = score(folder, tmp_path / "no.csv").report()
    (only, other) = report["classes"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert other["recall"] is None
    assert (only["support"], other["support"]) == ((table["label"] == "no").sum(), 0)
    text = score_text(score(folder, tmp_path / "no.csv"))
    for part in (
        "accuracy ",
        "| class ",
        "| label \\ answer | no",
        "| threshold (max_probability) |",
        "just now on this CPU",
    ):
        assert part in text
    assert f"cut at {MAX_LENGTH} tokens" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| yes") and "-" in line]
    assert [cell.strip() for cell in row.strip("|").split("|")][2] == "-"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "labels.json", "policy.json"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_that_is_missing_or_damaged_is_named(folder, rows, tmp_path, name, damaged):
    broken = copied(folder, tmp_path / "out")
    if damaged:
        (broken / name).write_bytes(b"{")
    else:
        (broken / name).unlink()
    with pytest.raises(PipeOpsError, match=f"{name}: {'damaged' if damaged else 'not found'}") as refusal:
        score(broken, rows)
    assert "\n" not in str(refusal.value)


def test_a_row_that_cannot_be_classified_is_named(folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"sentence": "w1", "label": "no"}\n{"sentence": "\\ud800", "label": "no"}\n')
    with pytest.raises(PipeOpsError, match=r"rows\.jsonl, row 2: a text that is not UTF-8"):
        score(folder, path)
    assert read_policy(folder)["max_length"] == MAX_LENGTH
