"""Scoring exported models of a study, and the command line."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from deployed import SINGLE, random_texts, write_study
from measured import MAX_LENGTH

from pipeops.errors import PipeOpsError
from pipeops.pipeline import Pipeline
from pipeops.study.deploying import Choice, deploy_choice
from pipeops.study.scoring import score


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "results"
    write_study(folder, "EP", prices=False)
    return folder


@pytest.fixture(scope="module")
def rows(results):
    path = results.parent / "rows.csv"
    texts = [text for (text,) in random_texts(30, pair=False)]
    pd.DataFrame({"sentence": texts, "label": ["no", "yes"] * 15}).to_csv(path, index=False)
    return path


def scored(folder, rows, **options):
    return score(folder, rows, **({"text": (), "label": "label", "int8": False, "threads": 1} | options))


@pytest.mark.parametrize("int8", [False, True])
def test_an_exported_model_is_scored_as_if_it_were_deployed(results, rows, tmp_path, int8):
    exported = results / "onnx" / SINGLE / "EP/seed1"
    found = scored(exported, rows, int8=int8)
    pipeline = Pipeline("EPLQ" if int8 else "EPL")
    choice = Choice(results=results, dataset=SINGLE, pipeline=pipeline, seed=1, thresholds=[2])
    deploy_choice(choice, tmp_path / "out")
    expected = scored(tmp_path / "out", rows)
    without_time = [
        {key: value for key, value in one.report().items() if key not in ("time_ms", "curve")}
        for one in (found, expected)
    ]
    assert without_time[0] == without_time[1]
    assert found.report()["mean_exit_layer"] == 4
    assert found.max_length == MAX_LENGTH


@pytest.mark.parametrize("exported_with", ["max_probability", "patience"])
def test_an_exported_model_of_a_study_with_patience_is_scored_by_patience(tmp_path, rows, exported_with):
    write_study(tmp_path, "EP", confidence=exported_with, answers=False, prices=False)
    study = tmp_path / "study.yaml"
    study.write_text("exits: {confidence: patience}")
    found = scored(tmp_path / "onnx" / SINGLE / "EP/seed1", rows, configfiles=[study])
    report = found.report()
    assert (report["confidence"], report["thresholds"]) == ("patience", [4, 4, 4])
    assert [point["threshold"] for point in report["curve"]] == [1, 2, 3, 4]
    assert report["mean_exit_layer"] > 3
    assert found.max_length == 22


def test_without_its_tokenizer_an_exported_model_is_refused(results, rows, tmp_path):
    shutil.copytree(results / "onnx", tmp_path / "onnx")
    for folder in (tmp_path / "onnx" / SINGLE / "EP/seed1", tmp_path / "out"):
        if not folder.exists():
            shutil.copytree(results / "onnx" / SINGLE / "EP/seed1", folder)
        with pytest.raises(
            PipeOpsError, match="is an exported model, whose tokenizer is in no folder"
        ) as refusal:
            scored(folder, rows)
        assert "\n" not in str(refusal.value)


def test_what_is_no_folder_or_has_no_int8_is_refused(results, rows, tmp_path):
    with pytest.raises(PipeOpsError, match=r"no: is no folder; name one that `pipeops deploy` wrote"):
        scored(tmp_path / "no", rows)
    with pytest.raises(PipeOpsError, match=r"model\.onnx: not found; deploy the model again"):
        scored(tmp_path, rows)
    with pytest.raises(PipeOpsError, match="--int8: is for exported folders"):
        scored(tmp_path, rows, int8=True)
    with pytest.raises(PipeOpsError, match="--configfile: is for exported folders"):
        scored(tmp_path, rows, configfiles=[tmp_path / "study.yaml"])


def test_the_command_prints_a_report_and_imports_no_torch(results, rows):
    script = (
        "import sys, pipeops.cli; sys.argv[1:] = "
        f"['score', {str(results / 'onnx' / SINGLE / 'EP/seed1')!r}, '--data', {str(rows)!r}, '--json']\n"
        "try: pipeops.cli.main()\nexcept SystemExit as end: assert not end.code\nprint(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *report, modules = run.stdout.splitlines()
    found = json.loads("\n".join(report))
    assert found["rows"] == 30
    assert [of["label"] for of in found["classes"]] == ["no", "yes"]
    assert len(found["curve"]) == 18
    assert not {"torch", "transformers", "datasets"} & set(modules.split())
    assert run.stderr == ""
