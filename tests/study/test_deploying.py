"""Deploying a study's model: thresholds from its answers, its card, and the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import pytest
import yaml
from deployed import PAIR, SINGLE, read_policy, run_script, write_study
from helpers import BIN, ROOT, unsealed, write_examples
from measured import MAX_LENGTH, costs
from typer.testing import CliRunner

from pipeops.cli import app
from pipeops.data.own import gather
from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.hardware import int8_kernels
from pipeops.measuring.answers import read_answers
from pipeops.measuring.classes import MACRO_F1, MCC, confusion, counts_of
from pipeops.measuring.policies import scores
from pipeops.onnx.deploy import FILES
from pipeops.onnx.export import export
from pipeops.pipeline import Pipeline
from pipeops.settings import MeasuringSection, TaskSection
from pipeops.study.deploying import Choice, deploy_choice, fastest


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "results"
    write_study(folder, "EP")
    return folder


def choice(results, pipeline="EPL", **changes):
    return Choice(
        **({"results": results, "dataset": SINGLE, "pipeline": Pipeline(pipeline), "seed": 1} | changes)
    )


def answers_of(results):
    return read_answers(results / "answers" / SINGLE / "EP/seed1.parquet")


def leaving(answers, inference, confidence, threshold):
    """Index of the exit, example by example, in the words of the rule."""
    sure = scores(answers.of(inference), confidence)
    return [next((i for i, value in enumerate(row[:-1]) if value >= threshold), len(row) - 1) for row in sure]


def accuracy_of(answers, inference, exits):
    right = answers.of(inference)[np.arange(len(exits)), exits].argmax(-1) == answers.label_ids
    return right.mean()


@pytest.mark.parametrize("confidence", ["max_probability", "entropy", "patience"])
@pytest.mark.parametrize("inference", ["L", "Q"])
@pytest.mark.parametrize("within", [0, 2, 10, 100])
def test_the_threshold_chosen_is_the_lowest_that_costs_little(results, confidence, inference, within):
    answers = answers_of(results)
    candidates = [1, 2, 3, 4] if confidence == "patience" else MeasuringSection().thresholds
    never = accuracy_of(answers, inference, [3] * len(answers.lengths))
    good = [
        threshold
        for threshold in candidates
        if accuracy_of(answers, inference, leaving(answers, inference, confidence, threshold))
        >= never - within / 100 - 1e-9
    ]
    assert fastest(answers, inference, confidence, within=within) == good[0]
    if within == 100:
        assert good[0] == candidates[0]


def card_of(folder):
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.mark.parametrize("inference", ["", "LQ"])
def test_the_card_says_what_was_measured(results, tmp_path, inference):
    policy = deploy_choice(
        choice(results, f"EP{inference}", thresholds=[0.6, 0.9, 0.7], base_model="owner/encoder"), tmp_path
    )
    answers = answers_of(results)
    sure = scores(answers.of(inference), "max_probability")
    exits = [
        next(
            (
                i
                for i, (value, at) in enumerate(zip(row, (0.6, 0.9, 0.7), strict=False))
                if value >= np.float32(at)
            ),
            3,
        )
        for row in sure
    ]
    accuracy = accuracy_of(answers, inference, exits)
    relative = costs(answers.lengths, exits, inference).mean()
    front, body = card_of(tmp_path)
    assert front["library_name"] == "onnx"
    assert front["base_model"] == "owner/encoder"
    assert front["pipeline_tag"] == "text-classification"
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": pytest.approx(accuracy, abs=1e-4)}]
    assert f"{accuracy:.1%} of 60 validation examples" in body
    assert f"{4 * relative:.3f} ms" in body
    assert f"{relative:.1%} of the original model's, padded to {MAX_LENGTH} tokens" in body
    assert f"{np.mean(exits) + 1:.2f} of 4" in body
    assert json.loads(json.dumps(policy.thresholds)) == read_policy(tmp_path)["thresholds"] == [0.6, 0.9, 0.7]
    assert (int8_kernels() in body) == ("Q" in inference)
    assert re.search(r"onnxruntime \d+\.\d+", body)


@pytest.mark.parametrize("metric", [MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_the_threshold_and_the_card_are_of_the_tasks_metric(results, tmp_path, metric):
    from huggingface_hub import ModelCard

    answers = answers_of(results)

    def quality(threshold):
        exits = leaving(answers, "L", "max_probability", threshold)
        said = answers.of("L")[np.arange(len(exits)), exits].argmax(-1)
        return float(metric.of(counts_of(confusion(answers.label_ids, said, 2))))

    good = [one for one in MeasuringSection().thresholds if quality(one) >= quality(1.01) - 0.02 - 1e-12]
    assert fastest(answers, "L", "max_probability", within=2, metric=metric) == good[0]
    policy = deploy_choice(choice(results, within=2, metric=metric), tmp_path)
    assert policy.thresholds == (good[0],) * 3
    front, body = card_of(tmp_path)
    assert front["metrics"] == [metric.hub]
    (result,) = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert (result.metric_type, result.metric_name) == (metric.hub, metric.title)
    assert result.metric_value == pytest.approx(quality(good[0]), abs=1e-4)
    assert re.search(rf"\| {metric.title} +\| {quality(good[0]):.1%} on 60 validation examples", body)
    assert "ccuracy" not in body


def test_the_command_takes_metric_and_results_from_the_studys_configuration(tmp_path, monkeypatch):
    """A task of one's own whose model lies where the configuration says."""
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "elsewhere", "EP", dataset="reviews", prices=False)
    rows = [f"w{number},{'no' if number % 2 else 'yes'}" for number in range(8)]
    (tmp_path / "train.csv").write_text("\n".join(["body,stars", *rows]))
    task = {"files": {"train": "train.csv"}, "held_out": 0.5, "text": "body", "label": "stars"}
    study = {
        "tasks": {"reviews": task | {"metric": "macro_f1"}},
        "datasets": ["reviews"],
        "pathvars": {"results": "elsewhere"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    gather("reviews", TaskSection(**task), tmp_path / "elsewhere/rows/reviews")
    command = ["deploy", "EPL", "out", "--dataset", "reviews", "--seed", "1", "--configfile", "study.yaml"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    front, _ = card_of(tmp_path / "out")
    assert front["metrics"] == ["f1"]


def test_the_card_is_one_of_the_hubs(results, tmp_path):
    from huggingface_hub import ModelCard

    deploy_choice(choice(results), tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.eval_results[0].metric_type == "accuracy"


@pytest.mark.parametrize(("pipeline", "dataset"), [("EPLQ", SINGLE), ("DQ", PAIR)])
def test_the_snippet_of_the_card_runs_in_the_folder(tmp_path, pipeline, dataset):
    write_study(tmp_path / "results", pipeline, dataset=dataset)
    deploy_choice(choice(tmp_path / "results", pipeline, dataset=dataset), tmp_path / "out")
    (snippet,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out/README.md").read_text(), flags=re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    texts = ["a text", "another text"] if dataset == PAIR else ["a text"]
    (line,) = run_script(tmp_path / "out", "--json", *texts).stdout.splitlines()
    answer = json.loads(line)
    assert run.stdout.split() == [answer["label"], str(answer["exit_layer"])]


def test_without_answers_a_threshold_must_be_given(tmp_path):
    write_study(tmp_path, "EP", answers=False, prices=False)
    with pytest.raises(PipeOpsError, match=r"--threshold: is needed, .*answers/sst2/EP/seed1\.parquet"):
        deploy_choice(choice(tmp_path), tmp_path / "out")
    policy = deploy_choice(choice(tmp_path, thresholds=[0.9]), tmp_path / "out")
    assert (policy.thresholds, policy.max_length) == ((0.9, 0.9, 0.9), 22)
    front, body = card_of(tmp_path / "out")
    assert "model-index" not in front
    assert "Measured" not in body


def test_without_answers_the_longest_input_is_that_of_prices_or_training(tmp_path):
    write_study(tmp_path, "EP", answers=False)
    assert deploy_choice(choice(tmp_path, thresholds=[0.9]), tmp_path / "priced").max_length == MAX_LENGTH
    shutil.rmtree(tmp_path / "prices")
    write_examples(tmp_path / "data" / SINGLE / "train.parquet")
    assert deploy_choice(choice(tmp_path, thresholds=[0.9]), tmp_path / "trained").max_length == 12


def test_without_prices_the_card_has_no_time(results, tmp_path):
    shutil.copytree(results, tmp_path / "results", ignore=shutil.ignore_patterns("prices"))
    policy = deploy_choice(choice(tmp_path / "results", thresholds=[0.9]), tmp_path / "out")
    assert policy.max_length == MAX_LENGTH
    _, body = card_of(tmp_path / "out")
    assert "60 validation examples" in body
    assert " ms" not in body


def test_with_another_longest_input_nothing_is_measured(results, tmp_path):
    policy = deploy_choice(choice(results, max_length=8), tmp_path)
    assert policy.max_length == 8
    assert "Measured" not in card_of(tmp_path)[1]


def test_a_pipeline_of_another_name_in_its_place_is_refused(results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    for kind in ("models", "onnx"):
        place = tmp_path / "results" / kind / SINGLE
        (place / "EP").rename(place / "PE")
    with pytest.raises(
        PipeOpsError, match=r"PE/seed1/config\.json: is of pipeline EP, not PE; train it again"
    ):
        deploy_choice(choice(tmp_path / "results", "PEL", thresholds=[0.9]), tmp_path / "out")


def test_a_model_or_an_export_of_another_seed_in_its_place_is_refused(results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    models, exported = (tmp_path / "results" / kind / SINGLE / "EP/seed1" for kind in ("models", "onnx"))
    config = unsealed(models) / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"seed": 2}))
    export(models, exported)
    chosen = choice(tmp_path / "results", "EPL", thresholds=[0.9])
    with pytest.raises(PipeOpsError, match=r"config\.json: is of seed 2, not 1; train it again"):
        deploy_choice(chosen, tmp_path / "out")
    config.write_text(json.dumps(told | {"seed": 1}))
    with pytest.raises(PipeOpsError, match=r"model\.onnx: seed is 2, where 1 is wanted"):
        deploy_choice(chosen, tmp_path / "out")


def test_the_command_line_deploys_without_torch_and_the_folder_classifies(results, tmp_path):
    script = (
        "import sys, pipeops.cli; sys.argv[1:] = "
        f"['deploy', 'EPLQ', 'out', '--results', {str(results)!r}, '--dataset', 'sst2', '--seed', '1']\n"
        "try: pipeops.cli.main()\nexcept SystemExit as end: assert not end.code\nprint(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said, modules = run.stdout.splitlines()
    threshold = f"{read_policy(tmp_path / 'out')['thresholds'][0]:g}"
    assert said == f"out: EPLQ, threshold {threshold}; try: python out/classify.py --help"
    assert not {"torch", "transformers", "datasets"} & set(modules.split())
    found = run_script(tmp_path / "out", "w1 w2 w3")
    assert (found.returncode, found.stderr) == (0, b"")
    assert re.fullmatch(rb"(no|yes)\t[01]\.\d{4}\n", found.stdout)


def test_how_the_model_is_run_is_printed_as_json(results, tmp_path):
    command = ["deploy", "EPL", str(tmp_path), "--results", str(results), "--dataset", SINGLE, "--seed", "1"]
    printed = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(printed.stdout) == {"folder": str(tmp_path)} | read_policy(tmp_path)


def blocks(language=""):
    """The page's code blocks in a language."""
    page = (ROOT / "docs/deploy.md").read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def test_the_commands_of_the_page_run(tmp_path, monkeypatch):
    """In a folder that holds what the workflow leaves there, with random weights."""
    write_study(tmp_path / "results", "DEP", dataset="generated-sentiment")
    write_study(tmp_path / "results", "EP", dataset="generated-paraphrase")
    (tmp_path / "reviews.csv").write_text("sentence,label\nw1 w2,yes\nw3,no\n")
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    assert blocks()
    for block in blocks():
        script = f"set -eo pipefail\n{block}"
        run = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout


def test_the_upload_of_the_page_is_one_of_the_hubs_library(results, tmp_path, monkeypatch):
    """Up to the network: the call fits the library's signature, and the folder's card is one of a hub."""
    from huggingface_hub import HfApi, ModelCard

    (upload,) = [snippet for snippet in blocks("python") if "upload_folder" in snippet]
    monkeypatch.chdir(tmp_path)
    deploy_choice(choice(results, base_model="owner/encoder"), tmp_path / "deployed")
    with patch.object(HfApi, "upload_folder", autospec=True) as called:
        exec(upload, {})
    folder = Path(called.call_args.kwargs["folder_path"])
    assert {path.name for path in folder.iterdir()} == set(FILES)
    data = ModelCard.load(folder / "README.md").data
    assert (data.base_model, data.library_name, data.pipeline_tag) == (
        "owner/encoder",
        "onnx",
        "text-classification",
    )


def test_a_checkpoint_runs_in_transformers_as_the_page_says(tmp_path):
    write_study(tmp_path / "results", "DEP", dataset="generated-sentiment", answers=False, prices=False)
    (snippet,) = [snippet for snippet in blocks("python") if "pipeline(" in snippet]
    run = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"\[\{'label': '(no|yes)', 'score': 0\.\d+\}\]\n", run.stdout)


def texts_of(results):
    """The validation examples as texts."""
    split = load_tokenised(results / "data/validation.parquet")
    return [" ".join(f"w{token - 3}" for token in ids[1:-1].tolist()) for ids in split.input_ids]


def exit_layers(folder, texts):
    """After which layers the script says that texts leave."""
    said = run_script(folder, "--json", text="\n".join(texts).encode() + b"\n")
    assert said.returncode == 0, said.stderr
    return [json.loads(line)["exit_layer"] for line in said.stdout.splitlines()]


@pytest.mark.parametrize("inference", ["L", "LQ"])
@pytest.mark.parametrize(("confidence", "threshold"), [("entropy", 0.6), ("patience", 2)])
def test_the_folder_leaves_by_the_studys_confidence_where_its_answers_say(
    results, tmp_path, confidence, threshold, inference
):
    """The workflow's exports decide by the largest probability."""
    (tmp_path / "study.yaml").write_text(f"exits: {{confidence: {confidence}}}")
    command = ["deploy", f"EP{inference}", str(tmp_path / "out"), "--dataset", SINGLE, "--seed", "1"]
    command += ["--configfile", str(tmp_path / "study.yaml"), "--results", str(results)]
    CliRunner().invoke(app, [*command, "--threshold", str(threshold)], catch_exceptions=False)
    policy = read_policy(tmp_path / "out")
    assert (policy["confidence"], policy["thresholds"]) == (confidence, [threshold] * 3)
    exits = leaving(answers_of(results), inference, confidence, np.float32(threshold))
    taken = exit_layers(tmp_path / "out", texts_of(results))
    assert taken == [index + 1 for index in exits]
    assert len(set(taken)) > 1


@pytest.mark.parametrize("confidence", ["entropy", "patience"])
def test_the_threshold_that_is_chosen_is_one_of_the_studys_confidence(results, tmp_path, confidence):
    policy = deploy_choice(choice(results, confidence=confidence, within=5), tmp_path)
    assert policy.confidence == confidence
    assert policy.thresholds == (fastest(answers_of(results), "L", confidence, within=5),) * 3
    assert f"{policy.thresholds[0]:g} ({confidence})" in card_of(tmp_path)[1]


@pytest.mark.parametrize(("confidence", "threshold"), [("entropy", 0.6), ("patience", 2)])
def test_a_graph_that_was_exported_with_the_studys_confidence_stays_as_it_is(
    results, tmp_path, confidence, threshold
):
    shutil.copytree(results, tmp_path / "results")
    place = Path(SINGLE, "EP/seed1")
    export(results / "models" / place, tmp_path / "results/onnx" / place, confidence=confidence)
    chosen = choice(tmp_path / "results", confidence=confidence, thresholds=[threshold])
    policy = deploy_choice(chosen, tmp_path / "out")
    assert policy.confidence == confidence
    exported, deployed = (
        onnx.load(path)
        for path in (tmp_path / "results/onnx" / place / "model.onnx", tmp_path / "out/model.onnx")
    )
    assert deployed.graph == exported.graph
    exits = leaving(answers_of(results), "L", confidence, np.float32(threshold))
    assert exit_layers(tmp_path / "out", texts_of(results)) == [index + 1 for index in exits]
    message = (
        rf"EP/seed1/model\.onnx: decides by {confidence}, where exits\.confidence is max_probability; export "
        rf"the model again without --confidence, or name a study with {confidence}$"
    )
    with pytest.raises(PipeOpsError, match=message):
        deploy_choice(choice(tmp_path / "results", thresholds=[0.5]), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_model_without_exits_is_deployed_whatever_the_studys_confidence(tmp_path):
    write_study(tmp_path / "results", "D", answers=False, prices=False, layers=2)
    policy = deploy_choice(choice(tmp_path / "results", "DL", confidence="patience"), tmp_path / "out")
    assert policy.thresholds == ()
    assert exit_layers(tmp_path / "out", ["w1 w2"]) == [2]
