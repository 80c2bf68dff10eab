"""Configurations for data of one's own: what is guessed, and what is written."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest

from pipeops.errors import PipeOpsError
from pipeops.study.config import read_study
from pipeops.study.starting import guess, start

ENCODER = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 50,
    "type_vocab_size": 2,
}
WORDS = ["the", "film", "was", "fine", "and", "the", "cast", "was", "not", "dull", "at", "all", "but", "long"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to be in, with reviews of three classes."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    rows = [
        {
            "id": f"r{number}",
            "review": " ".join(rng.choices(WORDS, k=rng.randint(3, 30))),
            "year": rng.choice([2020, 2021]),
            "price": rng.random(),
            "verdict": rng.choice(["good", "bad", "so-so"]),
        }
        for number in range(60)
    ]
    pd.DataFrame(rows).to_csv("reviews.csv", index=False)
    return tmp_path


def guessed(name, **options):
    found = guess(name, **({"text": (), "label": None, "longest": 512} | options))
    return found.text, found.label


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_are_guessed_from_names_and_values(folder, suffix):
    table = pd.read_csv("reviews.csv").rename(columns={"year": "stars"})
    name = folder / f"x.{suffix}"
    write = {"csv": table.to_csv, "parquet": table.to_parquet, "jsonl": table.to_json}[suffix]
    write(name, **({"orient": "records", "lines": True} if suffix == "jsonl" else {"index": False}))
    assert guessed(name) == (("review",), "stars")
    assert guessed(name, label="verdict") == (("review",), "verdict")
    assert guessed(name, text=["id", "review"]) == (("id", "review"), "stars")


def test_without_a_known_name_the_fewest_values_are_the_labels(folder):
    table = pd.read_csv("reviews.csv")
    table.drop(columns="year").to_csv("x.csv", index=False)
    assert guessed(folder / "x.csv") == (("review",), "verdict")
    table.rename(columns={"id": "Sentence1", "review": "sentence2"}).to_csv("x.csv", index=False)
    assert guessed(folder / "x.csv", label="verdict") == (("Sentence1", "sentence2"), "verdict")


def test_the_longest_input_follows_from_the_texts_and_the_model(folder):
    for words, expected in ((3, 16), (100, 128), (10_000, 512)):
        table = pd.DataFrame({"text": ["word " * words] * 10, "label": [0, 1] * 5})
        table.to_csv("x.csv", index=False)
        assert guess(folder / "x.csv", text=(), label=None, longest=512).max_length == expected
    assert guess(folder / "x.csv", text=(), label=None, longest=22).max_length == 22


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"text": ["a b"] * 4, "n": [1, 2, 3, 4]}, {}, "--label: no column of x.csv looks like labels"),
        ({"n": [1, 2] * 4, "label": [0, 1] * 4}, {}, "--text: no column of x.csv looks like texts"),
        (
            {"text": ["a"] * 4},
            {"label": "txet"},
            r"--label: x.csv has no column 'txet' \(did you mean",
        ),
        ({"text": ["a"] * 4}, {"text": ["b"]}, "--text: x.csv has no column 'b'; it has 'text'"),
        (
            {"text": ["a b"] * 8, "label": [*"xxxxyyy", " z "]},
            {},
            "--label: 'z' of 'label': fewer than 2 rows of x.csv in 1 of 3 classes; add rows, leave theirs",
        ),
        (
            {"text": ["a b"] * 4, "label": ["x", "x", "x", ""]},
            {"label": "label"},
            "--label: column 'label' of x.csv has one class only, 'x'; name another",
        ),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(folder, columns, options, message):
    pd.DataFrame(columns).to_csv("x.csv", index=False)
    with pytest.raises(PipeOpsError, match=message):
        guessed(Path("x.csv"), **options)


def test_a_name_with_a_line_break_is_refused(folder):
    Path("new\nline.csv").write_bytes(Path("reviews.csv").read_bytes())
    with pytest.raises(PipeOpsError) as raised:
        started(data="new\nline.csv")
    assert str(raised.value).startswith(r"'new\nline.csv': a name with line breaks or control characters")


def test_the_command_that_follows_can_be_pasted(folder):
    said = start(Path("reviews.csv"), "tiny", Path("a study.yaml"))
    assert said.endswith("  snakemake -n --configfile 'a study.yaml' -- parts")


def test_a_file_of_another_encoding_is_to_be_converted(folder):
    Path("latin.csv").write_bytes("text,label\nun caf\u00e9,a\nun film,b\n".encode("latin-1"))
    with pytest.raises(PipeOpsError) as raised:
        started(data="latin.csv")
    assert str(raised.value) == "latin.csv: is not UTF-8; convert it, such as by iconv -f latin1 -t utf-8"
    assert not Path("study.yaml").exists()


def started(model="tiny", data="reviews.csv", **options):
    said = start(Path(data), model, Path("study.yaml"), **options)
    return said, read_study([Path("study.yaml")])


def test_the_configuration_says_what_was_guessed_and_is_valid(folder):
    said, study = started(label="verdict")
    task = study.tasks["reviews"]
    assert (task.text, task.label, task.held_out) == (["review"], "verdict", 0.2)
    assert (study.datasets, study.model.backbone, study.model.max_length) == (["reviews"], "tiny", 64)
    assert study.data.train_examples is None
    # Its files do not lie among those of the default study.
    assert (study.pathvars.results, study.pathvars.logs) == ("results/reviews", "logs/reviews")
    for part in (
        "60 rows",
        "texts: review",
        "verdict, 3 classes (",
        "20% of these rows",
        "64 tokens",
        "results/reviews",
    ):
        assert part in said
    with pytest.raises(PipeOpsError, match=r"study\.yaml: is there already; name another by --output"):
        started()


def test_validation_rows_pairs_and_odd_names(folder):
    table = pd.read_csv("reviews.csv")[["id", "review", "verdict"]]
    table.columns = ["title", "body", "label: one"]
    table.to_csv("2024.csv", index=False)
    table.to_csv("dev: a.csv", index=False)
    _, study = started(data="2024.csv", validation=Path("dev: a.csv"))
    task = study.tasks["2024"]
    assert task.files == {"train": ["2024.csv"], "validation": ["dev: a.csv"]}
    assert (task.text, task.label, task.held_out) == (["title", "body"], "label: one", None)


def test_a_name_of_a_built_in_task_is_not_taken(folder):
    pd.read_csv("reviews.csv").to_csv("sst2.csv", index=False)
    assert started(data="sst2.csv", label="verdict")[1].datasets == ["own-sst2"]


@pytest.mark.parametrize(
    ("names", "finetuned", "words"),
    [
        (None, False, "an encoder that is fine-tuned on these rows"),
        ({"0": "GOOD", "1": "bad", "2": "so-so"}, True, "a classifier of these classes: it is O as it is"),
        (
            {"0": "yes", "1": "no"},
            False,
            "of other classes ('yes', 'no'): it is fine-tuned again",
        ),
    ],
)
def test_a_fine_tuned_classifier_is_recognised(folder, names, finetuned, words):
    config = ENCODER
    if names:
        config = config | {"architectures": ["BertForSequenceClassification"], "id2label": names}
    (folder / "encoder").mkdir()
    (folder / "encoder/config.json").write_text(json.dumps(config))
    said, study = started("./encoder", label="verdict")
    assert words in said
    assert study.model.finetuned == finetuned
    assert study.model.pooling == ("first" if finetuned else "mean")
    assert study.model.max_length == 50
    assert study.training.learning_rate == 1e-4


def test_models_that_cannot_be_taken_are_refused(folder):
    with pytest.raises(PipeOpsError, match=r"model\.backbone: './no' is not a folder"):
        started("./no")
    (folder / "other").mkdir()
    (folder / "other/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(PipeOpsError, match="'./other' is a gpt2 model; PipeOps supports"):
        started("./other")
    assert not (folder / "study.yaml").exists()
