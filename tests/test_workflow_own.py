"""Own data through the workflow as users run it: from a CSV to a folder that classifies texts."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from random import Random

import pandas as pd
import pytest
import yaml
from helpers import ANYWHERE, ROOT, STUDY, planned, snakemake

from pipeops.study.config import read_study
from pipeops.study.planning import plan

WORDS = {"bad": "awful dull poor", "fine, really": "great warm witty", "so-so": "plain usual common"}
SHARES = {"bad": 40, "fine, really": 80, "so-so": 20}
PAGE = (ROOT / "docs/own-data.md").read_text()
COMMANDS = re.search(r"```\n(snakemake .*?)```", PAGE, flags=re.DOTALL)[1].splitlines()
TARGET = COMMANDS[0].split()[-1]


def documented(language):
    """The study of the page."""
    return yaml.safe_load(re.search(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[1])


RESULTS = documented("yaml")["pathvars"]["results"]
TABLE = f"{RESULTS}/table2.csv"


def write_reviews(path, *, copies=1, seed=0):
    rng = Random(seed)
    labels = [label for label, count in SHARES.items() for _ in range(count * copies)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "body", "stars"])
        for number, label in enumerate(rng.sample(labels, len(labels))):
            body = " ".join(rng.choices(WORDS[label].split(), k=rng.randint(3, 70)))
            writer.writerow([number, rng.choice(["NA", 'a "film", really']), f"{body} {number}", label])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_reviews(folder / "train.csv")
    write_reviews(folder / "dev.csv", seed=1)
    few = {"pretraining": {"examples": 64, "threads": 1}, "training": STUDY["training"]}
    few |= {"prices": ANYWHERE, "pipelines": ["O"], "table2": ["O"], "operator_sets": ["PE"]}
    few["cumulativeness"] = []
    for name in ("study.yaml", "my-study.yaml"):  # as the tests' helper and as the page calls it
        (folder / name).write_text(yaml.safe_dump(documented("yaml") | few))
    run = snakemake(folder, "--cores", "1", TARGET, TABLE)
    (folder / "output.txt").write_text(run.stdout + run.stderr)
    return folder


def test_what_the_rows_are_is_printed_before_anything_trains(finished):
    output = (finished / "output.txt").read_text()
    counted, trained = output.index("reviews: 3 classes"), output.index("train O, reviews, seed 1")
    assert counted < output.index("reviews, train: 140 examples, ") < trained
    assert "| class fine, really | 80 (57.1%) | 80 (57.1%) |" in output
    about = json.loads((finished / RESULTS / "rows/reviews/about.json").read_text())
    assert about["classes"]["train"] == SHARES


def test_class_names_reach_the_checkpoint_and_the_deployed_folder(finished):
    names = {str(number): label for number, label in enumerate(sorted(SHARES))}
    config = json.loads((finished / RESULTS / "models/reviews/O/seed1/config.json").read_text())
    assert config["id2label"] == names
    command = [sys.executable, "-m", *shlex.split(COMMANDS[1])]
    subprocess.run(command, cwd=finished, check=True)
    assert json.loads((finished / "deployed/labels.json").read_text()) == names
    policy = json.loads((finished / "deployed/policy.json").read_text())
    assert policy["text_columns"] == ["title", "body"]
    card = (finished / "deployed/README.md").read_text()
    assert "answers `bad` or `fine, really` or `so-so` for two texts" in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == "reviews"
    asked = [sys.executable, *shlex.split(COMMANDS[2])[1:-1], "awful dull poor " * 200]
    run = subprocess.run(asked, cwd=finished, check=True, capture_output=True, text=True)
    label, probability = run.stdout.rstrip("\n").split("\t")
    assert label in SHARES
    assert 1 / 3 <= float(probability) <= 1
    command[command.index("reviews")] = "review"
    wrong = subprocess.run(command, cwd=finished, capture_output=True, text=True, check=False)
    assert "--dataset: unknown dataset 'review' (did you mean 'reviews'?)" in wrong.stderr


def test_a_plan_counts_the_jobs_of_every_rule(finished, tmp_path, monkeypatch):
    for name in ("train.csv", "dev.csv"):
        shutil.copy(finished / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    jobs = planned(snakemake(tmp_path, "--dry-run", "all", config=documented("yaml")))
    del jobs["all"]
    assert jobs == plan(read_study([tmp_path / "run.yaml"])).jobs
    assert (jobs["rows"], jobs["pretrain"], jobs["tokenise_own"]) == (1, 1, 2)


def test_another_metric_runs_nothing_but_curves_and_analyses(finished):
    reviews = documented("yaml")["tasks"]["reviews"]
    assert planned(snakemake(finished, "-n", TABLE)) == {}
    for metric in ("macro_f1", "mcc"):
        config = {"tasks": {"reviews": reviews | {"metric": metric}}}
        assert planned(snakemake(finished, "-n", TABLE, config=config)) == {"curves": 1, "table2": 1}
    before = pd.read_csv(finished / TABLE)
    assert before["metric"].tolist() == ["accuracy"]
    snakemake(finished, "--cores", "1", TABLE, config=config)
    assert pd.read_csv(finished / TABLE)["metric"].tolist() == ["mcc"]
    assert "| reviews (MCC) " in (finished / RESULTS / "table2.md").read_text()
    snakemake(finished, "--cores", "1", TABLE)
    pd.testing.assert_frame_equal(pd.read_csv(finished / TABLE), before)


def test_only_what_reads_other_rows_runs_again(finished):
    assert planned(snakemake(finished, "-n", TARGET)) == {}
    for changes in ({"validation_examples": 20}, {"train_examples": 100}):
        again = planned(snakemake(finished, "-n", TARGET, config={"data": changes}))
        assert "rows" not in again
        assert ("train" in again) == ("train_examples" in changes)
    write_reviews(finished / "dev.csv", seed=2)
    assert planned(snakemake(finished, "-n", TARGET))["rows"] == 1
