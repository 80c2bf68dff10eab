"""Recommendations of a study on disk: answers, commands, verification."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import yaml
from measured import made_up_replays, write_runs
from typer.testing import CliRunner

from pipeops.analysis.predict import MEASURED, PREDICTED
from pipeops.analysis.recommend import Budget, name_of
from pipeops.cli import app
from pipeops.errors import PipeOpsError
from pipeops.measuring.classes import MACRO_F1
from pipeops.pipeline import Pipeline
from pipeops.study import recommending
from pipeops.study.recommending import (
    BUDGETS,
    Asked,
    predictions,
    predictions_text,
    recommendation,
    verify,
)

SINGLES = ("O", "D", "P", "E")
DATASET = "generated-sentiment"
STUDY = {
    "datasets": [DATASET],
    "seeds": [1, 2, 3],
    "pipelines": ["O", "D", "P", "E", "DP"],
    "measuring": {"thresholds": [0.0, 0.6, 0.8, 0.95, 1.01]},
}

MADE = made_up_replays(
    [(name, seed) for name in (*SINGLES, "DP", "DE", "PE", "DPE") for seed in (1, 2, 3)],
    thresholds=STUDY["measuring"]["thresholds"],
    dataset=DATASET,
)


def study(tmp_path, monkeypatch, pipelines, seeds=(1, 2, 3), **changes):
    """A study in the current folder, of which these runs exist; prices are of all pipelines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | changes))
    write_runs(tmp_path / "results", MADE)
    for path in (tmp_path / "results/answers" / DATASET).glob("*/seed*.parquet"):
        if path.parent.name not in pipelines or int(path.stem[4:]) not in seeds:
            path.rename(tmp_path / f"{path.parent.name}-{path.name}")
    return Asked.read([tmp_path / "study.yaml"], None)


def only(answer, kind):
    """As if nothing else met the budget."""
    return dataclasses.replace(answer, ranked=answer.ranked[answer.ranked["kind"] == kind])


def ask(*arguments):
    return CliRunner().invoke(app, [*arguments, "--configfile", "study.yaml"])


def test_the_answer_comes_first_with_intervals_and_what_is_to_be_trained(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, (*SINGLES, "DP", "DE"))
    times = tmp_path / f"logs/models/{DATASET}"
    for name, seconds in (("O", 30), ("P", 50), ("D", 10)):
        (times / name).mkdir(parents=True)
        (times / name / "seed1.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")
    weights = tmp_path / f"results/models/{DATASET}/O/seed1/model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    answer = recommendation(asked, Budget(max_time=0.19))
    lines = answer.text().splitlines()
    interval = r"\(\d+\.\d-\d+\.\d\)"
    assert re.fullmatch(
        rf"Take \w+( at threshold \S+)?: \d+\.\d% {interval} accuracy \((measured|predicted)\) "
        r"in \S+ ms \(\S+-\S+; \S+ of O's\) an input, \S+ MB\.",
        lines[0],
    )
    steps = re.match(r"Still to be trained: ([\w, ]+), about (\d+) s: (snakemake .*)$", lines[1])
    seconds = {"D": 10, "P": 50, "E": 30}  # E was never trained: the mean of all
    assert int(steps[2]) == sum(seconds[step[-1]] for step in steps[1].split(", "))
    pipeline = answer.best["pipeline"]
    assert shlex.split(steps[3]) == [
        "snakemake", "--cores", "2", "--configfile", str(tmp_path / "study.yaml"), "--",
        f"results/onnx/{DATASET}/{pipeline}/seed1/model.onnx",
        f"results/answers/{DATASET}/{pipeline}/seed1.parquet",
    ]  # fmt: skip
    assert "| runner-up" in lines[3]


def test_a_task_of_ones_own_is_predicted_and_recommended_in_its_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("body,stars\n" + "w1,no\nw2,yes\n" * 4)
    task = {"files": {"train": "train.csv"}, "held_out": 0.5, "text": "body", "label": "stars"}
    settings = {"tasks": {"reviews": task | {"metric": "macro_f1"}}, "datasets": ["reviews"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | settings))
    runs = [(name, seed) for name in (*SINGLES, "DE") for seed in (1, 2, 3)]
    thresholds = STUDY["measuring"]["thresholds"]
    made = made_up_replays(runs, thresholds=thresholds, dataset="reviews", every=5, metric=MACRO_F1)
    write_runs(tmp_path / "results", made)
    asked = Asked.read([tmp_path / "study.yaml"], None)
    table = predictions(asked)
    assert set(table["metric"]) == {"macro_f1"}
    of_e = [made.runs["reviews", "E", seed].points("", "max_probability", thresholds) for seed in (1, 2, 3)]
    expected = np.mean([[point["accuracy"] for point in points] for points in of_e], axis=0)
    rows = table[(table["pipeline"] == "E") & (table["inference"] == "")]
    np.testing.assert_allclose(rows["accuracy"], expected)
    assert predictions_text(asked, table).startswith("Macro-F1 within a time t of O's")
    answer = recommendation(asked, Budget(max_time=0.9))
    assert re.match(r"Take \w+.*: \S+% \(\S+\) macro-F1 \((measured|predicted)\) in ", answer.text())
    assert "macro-F1 (90% interval)" in answer.text()
    assert answer.document()["answer"]["metric"] == "macro_f1"
    assert "accuracy" not in answer.text()


def test_for_programs_there_is_the_same_as_json(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, (*SINGLES, "DP", "DE"))
    run = ask("recommend", "--max-time", "0.19", "--json")
    document = json.loads(run.stdout)
    answer = recommendation(asked, Budget(max_time=0.19))
    assert document["answer"]["name"] == name_of(answer.best)
    assert document["answer"]["accuracy"] == pytest.approx(answer.best["accuracy"])
    assert (
        document["answer"]["time_ms_low"]
        <= document["answer"]["time_ms"]
        <= document["answer"]["time_ms_high"]
    )
    assert document["answer"]["untrained"][0] == "O"
    assert document["answer"]["training_seconds"] is None
    assert document["answer"]["command"][0] == "snakemake"
    assert len(document["runners_up"]) == len(answer.ranked) - 1
    assert document["budget"] == {
        "max_time_ms": None, "max_time": 0.19, "min_accuracy": None, "max_drop": None, "max_size": None,
    }  # fmt: skip
    assert all(re.search(r"^\w+: (Q|leaving early) ", line) for line in document["refused"])
    assert document["refused"]  # int8 answers are made up to be wrong


def test_within_a_time_the_best_threshold_counts(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, SINGLES)
    table = predictions(asked)
    of_e = table[(table["pipeline"] == "E") & (table["inference"] == "")]
    _, line = predictions_text(asked, table).split("| E  ", 1)
    cells = [cell.strip() for cell in line.splitlines()[0].split("|")][-len(BUDGETS) - 1 : -1]
    for budget, cell in zip(BUDGETS.values(), cells, strict=True):
        fitting = of_e[of_e["time_relative"] <= budget]
        expected = "-" if fitting.empty else f"{100 * fitting['accuracy'].max():.1f}% "
        assert f"{cell} ".startswith(expected)


def test_what_the_gate_refused_is_said_of_the_answer_and_counted_of_the_rest(tmp_path, monkeypatch):
    answer = recommendation(study(tmp_path, monkeypatch, SINGLES), Budget(max_time=0.9))
    said = answer.text()
    named = set(re.findall(r"^(\w+): (?:Q|leaving early) ", said, flags=re.MULTILINE))
    assert named  # int8 answers are made up to be wrong
    assert {Pipeline(name).trained for name in named} == {answer.best["pipeline"]}
    assert re.search(
        r"^The gate refused thresholds of \d+ other pipelines; --json lists them\.$", said, re.MULTILINE
    )


def test_orderings_that_share_a_prediction_share_a_line(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, (*SINGLES, "DE"))
    answer = recommendation(asked, Budget(max_time=0.9))
    of_dpe = answer.ranked[answer.ranked["pipeline"].isin(["DEP", "DPE", "EDP"])]
    text = dataclasses.replace(answer, ranked=of_dpe[of_dpe["inference"] == ""]).text()
    assert text.startswith("Take DEP at")
    assert "\nThe prediction is the same for DPE, EDP.\n" in text
    assert "| runner-up" not in text
    listed = predictions_text(asked, predictions(asked))
    assert "| DEPLQ, DPELQ, EDPLQ |" in listed
    assert re.search(r"^\| DE +\| measured, 3", listed, flags=re.MULTILINE)
    assert re.search(r"^\| ED +\| predicted, 3", listed, flags=re.MULTILINE)


def test_without_a_checked_prediction_there_is_no_interval_and_that_is_said(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, SINGLES)
    table = predictions(asked)
    assert table[table["kind"] == PREDICTED]["accuracy_low"].isna().all()
    measured = table[table["kind"] == MEASURED]
    assert measured["accuracy_low"].notna().all()
    said = "It has no interval: too few seeds, or no such prediction was checked yet."
    assert said in only(recommendation(asked, Budget(max_time=1)), PREDICTED).text()
    assert said not in only(recommendation(asked, Budget(max_time=1)), MEASURED).text()


def test_too_few_runs_name_the_command_with_the_configuration_files(tmp_path, monkeypatch):
    for there, missing in (("DE", "O, P"), ("O", "D, P, E")):
        folder = tmp_path / there
        folder.mkdir()
        asked = study(folder, monkeypatch, tuple(there), seeds=[2])
        with pytest.raises(PipeOpsError) as raised:
            predictions(asked)
        targets = " ".join(f"results/answers/{DATASET}/{part}/seed1.parquet" for part in missing.split(", "))
        assert str(raised.value) == (
            f"{DATASET}: too few runs to predict from: {missing} is missing; "
            f"snakemake --cores 2 --configfile {folder}/study.yaml -- {targets}"
        )


def test_measured_pipelines_can_be_recommended_where_nothing_can_be_predicted(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, ("O", "DE", "ED"))
    assert set(predictions(asked)["kind"]) == {MEASURED}
    assert recommendation(asked, Budget(max_time=0.5)).best["pipeline"] in ("DE", "ED")


def test_no_prices_name_the_command_with_the_configuration_files(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, SINGLES, pathvars={"results": "elsewhere"})
    with pytest.raises(
        PipeOpsError, match=r"no prices; .*snakemake --cores 2 --configfile .*study.yaml -- else"
    ):
        predictions(asked)


def test_pipelines_of_which_nothing_is_known_are_named(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, ("O", "D", "E"))
    text = predictions_text(asked, predictions(asked))
    said = text.splitlines()[-1]
    assert said.startswith(
        "Nothing is known of P, DP, EP, PE, DEP, DPE, EDP; snakemake --cores 2 --configfile "
    )
    assert said.endswith(f" -- results/answers/{DATASET}/P/seed1.parquet")
    asked = study(tmp_path, monkeypatch, SINGLES)
    assert "Nothing is known" not in predictions_text(asked, predictions(asked))


def test_parts_of_different_seeds_stop_nothing(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, ("O", "E"))
    (tmp_path / "D-seed2.parquet").rename(tmp_path / f"results/answers/{DATASET}/D/seed2.parquet")
    (tmp_path / f"results/answers/{DATASET}/E/seed2.parquet").unlink()
    text = predictions_text(asked, predictions(asked))
    assert "| E " in text
    assert "| D " in text
    assert "DE" not in re.findall(r"^\| (\w+)", text, flags=re.MULTILINE)


def test_verifying_trains_by_snakemake_and_compares(tmp_path, monkeypatch):
    study(tmp_path, monkeypatch, (*SINGLES, "DP", "PE"))
    (tmp_path / "Snakefile").touch()
    commands = []

    def run(command, **options):
        commands.append(command)
        assert options["stdout"] is sys.stderr
        target = tmp_path / command[-1]
        (tmp_path / f"{target.parent.name}-{target.name}").rename(target)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(recommending.subprocess, "run", run)
    budget = ["--max-time", "0.16", "--max-drop", "20"]
    done = ask("recommend", *budget, "--verify", "--cores", "4")
    pipeline = re.match(r"Take (\w+?)L?Q? ", done.stdout)[1]
    assert commands == [
        [
            sys.executable, "-m", "snakemake", "--cores", "4", "--configfile", "study.yaml", "--",
            f"results/answers/{DATASET}/{pipeline}/seed1.parquet",
        ]
    ]  # fmt: skip
    said = done.stdout.partition("Measured with seed 1:\n")[2]
    assert re.match(
        r"- accuracy \d+\.\d%, predicted \d+\.\d% \(\S+\): (inside|outside) its interval\n"
        r"- time \S+ ms, predicted \S+ ms \(.* of O's\): (inside|outside) its interval\n",
        said,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "--plot", "curves.svg"), "--plot: 'curves.svg' is no PNG or PDF"),
        (
            ("recommend", "--max-time", "0.16", "--max-drop", "20", "--verify"),
            "--verify: this folder has no Snak",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, monkeypatch, arguments, message):
    study(tmp_path, monkeypatch, (*SINGLES, "DP"))
    done = ask(*arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, PipeOpsError)
    assert str(done.exception).startswith(message)


def test_a_failed_verification_names_its_command(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, (*SINGLES, "DP"))
    (tmp_path / "Snakefile").touch()
    monkeypatch.setattr(
        recommending.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1)
    )
    answer = recommendation(asked, Budget(max_time=0.16, max_drop=20))
    with pytest.raises(
        PipeOpsError, match=r"--verify: snakemake --cores 3 --configfile .* failed; its first"
    ):
        verify(answer, cores=3)


def test_what_was_measured_needs_no_verification(tmp_path, monkeypatch):
    asked = study(tmp_path, monkeypatch, SINGLES)
    assert verify(only(recommendation(asked, Budget(max_time=1)), MEASURED), cores=2) is None


def test_predictions_are_drawn(tmp_path, monkeypatch):
    study(tmp_path, monkeypatch, (*SINGLES, "DE"))
    for name in ("curves.png", "curves.pdf"):
        assert ask("predict", "--plot", name).exit_code == 0
        assert (tmp_path / name).stat().st_size > 10_000
