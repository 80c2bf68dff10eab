"""V through the workflow: vocabulary, prices, trainings, tables, recommendation and the deployed folder."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from deployed import run_script
from helpers import STUDY, planned, snakemake, write_two_layer_backbone

from pipeops.data.synthetic import generate
from pipeops.data.tokenised import load_tokenised
from pipeops.measuring.answers import read_answers
from pipeops.measuring.prices import read_prices
from pipeops.models.shape import ModelShape
from pipeops.models.vocabulary import read_vocabulary
from pipeops.study.config import read_study
from pipeops.study.planning import plan
from pipeops.training.pretraining import subword_tokenizer

TASK = "generated-sentiment"
TRAIN, VALIDATION = 8, 40
MEASURED = ("VDE", "VED", "O", "V")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which a small study with V was run. Of few training texts others have other tokens."""
    folder = tmp_path_factory.mktemp("study")
    model = {"max_length": 40}
    tokenizer = subword_tokenizer(generate(TASK, "train", 400)["sentence"])
    for seed, name in enumerate(("backbone", "student")):
        write_two_layer_backbone(folder / name, seed=seed, tokenizer=tokenizer)
        model[name] = str(folder / name)
    study = STUDY | {
        "model": model,
        "seeds": [1],
        "operator_sets": ["VDE"],
        "pipelines": ["O", "V"],
        "table2": ["O", "V"],
        "data": {"train_examples": TRAIN, "validation_examples": VALIDATION},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    expected = plan(read_study([folder / "study.yaml"])).jobs
    assert planned(snakemake(folder, "--dry-run", "all")) == {**expected, "all": 1}
    snakemake(folder, "--cores", "2", "all")
    return folder


@pytest.fixture(name="pruned")
def pruned_backbones(finished):
    return finished / f"results/vocabulary/{TASK}"


def pipeops(folder, *arguments):
    command = [sys.executable, "-m", "pipeops", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_training_texts_have_the_tokens_that_they_had(finished, pruned):
    base = read_vocabulary(pruned / "backbones/base")
    assert base == read_vocabulary(pruned / "backbones/student")
    assert len(base.kept) < base.before
    whole = load_tokenised(finished / f"results/data/{TASK}/train.parquet")
    fewer = load_tokenised(pruned / f"data/{TASK}/train.parquet")
    assert len(whole) == len(fewer) == TRAIN
    for before, after in zip(whole.input_ids, fewer.input_ids, strict=True):
        assert before.tolist() == [base.kept[token] for token in after]


def test_every_model_and_price_has_the_pruned_shape(finished, pruned):
    tokens = len(read_vocabulary(pruned / "backbones/base").kept)
    original = ModelShape.from_checkpoint(finished / f"results/models/{TASK}/O/seed1")
    for pipeline in ("V", "VD", "VE", "VDE", "VED"):
        shape = ModelShape.from_checkpoint(finished / f"results/models/{TASK}/{pipeline}/seed1")
        assert shape.vocab_size == tokens < original.vocab_size
    for operators in ("V", "VDE"):
        prices = read_prices(finished / f"results/prices/{TASK}/{operators}.csv", this_cpu=False)
        assert (prices.shape.vocab_size, prices.original) == (tokens, original)


def test_rows_of_the_same_pieces_have_the_same_answers(finished, pruned):
    base = read_vocabulary(pruned / "backbones/base")
    whole = load_tokenised(finished / f"results/data/{TASK}/validation.parquet")
    fewer = load_tokenised(pruned / f"data/{TASK}/validation.parquet")
    same = [
        before.tolist() == [base.kept[token] for token in after]
        for before, after in zip(whole.input_ids, fewer.input_ids, strict=True)
    ]
    assert 0 < sum(same) < VALIDATION  # others have words that no training text has
    before, after = (
        read_answers(finished / f"results/answers/{TASK}/{name}/seed1.parquet") for name in ("O", "V")
    )
    apart = abs(after.logits["fp32"] - before.logits["fp32"])
    assert apart[same].max() < 1e-5 < apart[~np.array(same)].max()
    assert (after.lengths >= before.lengths).all()
    assert (after.lengths > before.lengths).any()


def test_v_is_in_the_tables_and_its_file_is_smaller(finished):
    results = finished / "results"
    assert set(pd.read_csv(results / "table1.csv")["operators"]) == {"VDE"}
    assert pd.read_csv(results / "table2.csv")["pipeline"].tolist() == ["O", "V"]
    sizes = {
        name: pd.read_csv(results / f"curves/{TASK}/{name}.csv")["parameters"].max() for name in ("O", "V")
    }
    shape = ModelShape.from_checkpoint(results / f"models/{TASK}/O/seed1")
    base = read_vocabulary(results / f"vocabulary/{TASK}/backbones/base")
    assert sizes["O"] - sizes["V"] == (base.before - len(base.kept)) * shape.hidden_size
    for name in ("model.onnx", "model-int8.onnx"):
        whole, fewer = ((results / f"onnx/{TASK}/{one}/seed1" / name).stat().st_size for one in ("O", "V"))
        assert fewer < whole


def test_a_largest_size_recommends_it(finished):
    every = json.loads(pipeops(finished, "predict", "--json", "--configfile", "study.yaml"))
    assert {row["pipeline"] for row in every} == set(MEASURED)
    size = {row["pipeline"]: row["parameters"] * 4 / 1e6 for row in every}
    budget = ("--max-size", str((size["O"] + size["V"]) / 2), "--max-time", "100", "--max-drop", "100")
    answer = json.loads(pipeops(finished, "recommend", *budget, "--json", "--configfile", "study.yaml"))
    fp32 = {
        row["pipeline"] for row in (answer["answer"], *answer["runners_up"]) if "Q" not in row["inference"]
    }
    assert "V" in fp32
    assert "O" not in fp32


def test_the_deployed_folder_answers_as_its_model_did(finished, tmp_path):
    output = tmp_path / "deployed"
    arguments = ("--dataset", TASK, "--seed", "1", "--configfile", "study.yaml")
    pipeops(finished, "deploy", "VLQ", str(output), *arguments)
    tokens = json.loads((output / "tokenizer.json").read_text())["model"]["vocab"]
    base = read_vocabulary(finished / f"results/vocabulary/{TASK}/backbones/base")
    assert len(tokens) == len(base.kept)
    texts = generate(TASK, "validation", VALIDATION)["sentence"]
    run = run_script(output, "--json", text="\n".join(texts).encode())
    said = [json.loads(line)["label"] for line in run.stdout.splitlines()]
    answers = read_answers(finished / f"results/answers/{TASK}/V/seed1.parquet")
    assert said == [answers.labels[label] for label in answers.logits["int8"][:, -1].argmax(axis=-1)]


def test_other_tokens_repeat_what_starts_from_them_and_nothing_else(finished):
    jobs = planned(snakemake(finished, "--dry-run", "all", config={"vocabulary": {"size": 400}}))
    assert (jobs["vocabulary"], jobs["tokenise_pruned"], jobs["price"]) == (1, 2, 2)
    assert (jobs["train"], jobs["export"], jobs["evaluate"]) == (5, 3, 3)
    assert not {"tokenise", "backbone", "student"} & set(jobs)
