"""The `tasks` section: its forms, what is refused before anything runs, and what jobs are given of it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import write_classifier

from pipeops.errors import PipeOpsError
from pipeops.models.architectures import TINY_OF_OWN_ARCHITECTURE
from pipeops.pipeline import Pipeline
from pipeops.study import jobs
from pipeops.study.config import load_config
from pipeops.study.planning import plan, shape_of, training_flops

HEADER = "id,title,body,stars"
ROWS = [f"{number},t{number},word word,{number % 3}" for number in range(9)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to be in, with training and validation files."""
    monkeypatch.chdir(tmp_path)
    for name in ("train.csv", "dev.csv"):
        (tmp_path / name).write_text("\n".join([HEADER, *ROWS]) + "\n")
    (tmp_path / "spaced.csv").write_text("\n".join([HEADER.replace(",", ", "), *ROWS]) + "\n")
    return tmp_path


def study(datasets=("reviews",), model=None, **changes):
    files = {"train": "train.csv", "validation": "dev.csv"}
    task = {"files": files, "text": ["title", "body"], "label": "stars"} | changes
    values = {"tasks": {"reviews": {key: value for key, value in task.items() if value is not None}}}
    return load_config(values | {"datasets": list(datasets), "model": model or {}})


def test_the_documented_form(folder):
    found = study()
    assert found.tasks["reviews"].files == {"train": ["train.csv"], "validation": ["dev.csv"]}
    task = found.task("reviews")
    assert (task.columns, task.rows, task.own) == (("title", "body"), {"train": 9, "validation": 9}, True)
    assert found.own_datasets == ["reviews"]
    assert study(text="body").tasks["reviews"].text == ["body"]
    assert study(files={"train": "train.csv"}, held_out=1 / 3).task("reviews").rows == {
        "train": 6,
        "validation": 3,
    }


BAD = {
    "misspelt dataset": ({"datasets": ["review"]}, r"unknown dataset 'review' \(did you mean 'reviews'\?\)"),
    "misspelt built-in": ({"datasets": ["sts2"]}, r"unknown dataset 'sts2' \(did you mean 'sst2'\?\)"),
    "no such file": (
        {"files": {"train": "trian.csv", "validation": "dev.csv"}},
        "tasks.reviews.files: 'trian.csv' is not a file; name an existing one",
    ),
    "no such text": (
        {"text": "titel"},
        r"tasks.reviews.text: 'train.csv' has no column 'titel' \(did you mean 'title'\?\); it has id, title",
    ),
    "no such label": (
        {"label": "star"},
        r"tasks.reviews.label: 'train.csv' has no column 'star' \(did you mean 'stars'\?\)",
    ),
    "text with a space": (
        {"files": {"train": "spaced.csv", "validation": "dev.csv"}},
        r"tasks.reviews.text: 'spaced.csv' has no column 'title', only ' title', with spaces around it",
    ),
    "no such group": (
        {"files": {"train": "train.csv"}, "held_out": 0.2, "group": "ids"},
        r"tasks.reviews.group: 'train.csv' has no column 'ids' \(did you mean 'id'\?\)",
    ),
    "other metric": (
        {"metric": "f1"},
        r"tasks.reviews.metric: input should be 'accuracy', 'macro_f1' or 'mcc' \(got 'f1'\)",
    ),
    "unknown key": ({"colunm": "x"}, "unknown key 'tasks.reviews.colunm'"),
    "unknown split": ({"files": {"dev": "dev.csv"}}, r"tasks.reviews.files.dev.* 'train' or 'validation'"),
    "no validation": ({"files": {"train": "train.csv"}}, "has no validation; name its file, or set held_out"),
    "two validations": ({"held_out": 0.5}, "held_out: validation rows are given too"),
    "no train": ({"files": {"validation": "dev.csv"}}, "files: has no train; name its file"),
    "no source": ({"files": None}, "name either files or a hub's data set"),
    "two sources": ({"hub": "owner/name"}, "name either files or a hub's data set"),
    "group without held_out": ({"group": "id"}, "group is for held_out"),
    "hub's keys": ({"subset": "x"}, "subset and splits are a hub's"),
    "three texts": ({"text": ["id", "title", "body"]}, "tasks.reviews.text: list should have at most 2"),
    "label as text": ({"label": "title"}, "column 'title' is named twice"),
    "encoding": ({"encoding": "latin-11"}, "tasks.reviews.encoding: 'latin-11' is no encoding"),
    "mixed with generated": (
        {"datasets": ["reviews", "generated-sentiment"]},
        "model.backbone: 'tiny' is pretrained on generated text or on texts of your own",
    ),
    "mixed with GLUE": ({"datasets": ["reviews", "sst2"]}, "model.backbone: 'tiny' knows only"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_refused_is_said_in_one_line(folder, changes, message):
    with pytest.raises(PipeOpsError, match=message) as error:
        study(**changes)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("sst2", "'sst2' is the name of a built-in task"), ("a/b", "'a/b' names files too; use letters")],
)
def test_names_that_cannot_be_given(name, message):
    with pytest.raises(PipeOpsError, match=f"tasks: {message}"):
        load_config({"tasks": {name: {"hub": "owner/name", "text": "text", "label": "label"}}})


def test_a_format_is_told_by_its_suffix(folder):
    (folder / "train.txt").write_text("x")
    with pytest.raises(PipeOpsError, match=r"'train.txt' is of no known format; .* .csv, .tsv, .jsonl, .par"):
        study(files={"train": "train.txt", "validation": "dev.csv"})


def write(path, columns):
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        separator = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [separator.join(columns), *(separator.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_glance_counts_small_files_of_every_format(folder, suffix):
    write(folder / f"a.{suffix}", {"title": ["x" * 40] * 7, "stars": list(range(7))})
    files = {"train": f"a.{suffix}", "validation": f"a.{suffix}"}
    task = study(files=files, text="title").task("reviews")
    assert (task.rows["train"], task.mean_tokens) == (7, 12)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_glance_estimates_large_files_and_follows_their_changes(folder, suffix):
    path = folder / f"a.{suffix}"
    files = {"train": path.name, "validation": path.name}
    write(path, {"title": ["x" * 90] * 30_000, "stars": list(range(30_000))})
    assert study(files=files, text="title").task("reviews").rows["train"] == pytest.approx(30_000, rel=0.02)
    write(path, {"title": ["x"], "stars": [1]})
    assert study(files=files, text="title").task("reviews").rows["train"] == 1


def test_what_stands_for_a_header_is_never_printed_in_full(folder):
    text = "a private sentence that nobody else should ever read"
    (folder / "train.csv").write_text(f"{text},1\n{text},2\n")
    with pytest.raises(PipeOpsError, match="it has a private sentenc..., 1") as error:
        study()
    assert text not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.csv: is empty; its first line must name the columns"),
        (b"title,title,stars\n", "train.csv: has 2 columns 'title'; rename one"),
        ("title,body,stars\ncafé,x,1\n".encode("latin-1"), r"train.csv: is not UTF-8 .*encoding: latin-1"),
    ],
)
def test_a_damaged_beginning_is_named(folder, content, message):
    (folder / "train.csv").write_bytes(content)
    with pytest.raises(PipeOpsError, match=message):
        study()


def test_nothing_is_looked_at_where_answers_are_published_or_a_hub_has_the_rows(tmp_path):
    found = study(files=None, hub="owner/name", splits={"validation": "test"})
    with pytest.raises(PipeOpsError, match="the size of 'owner/name' is not known before it is fetched"):
        found.task("reviews")
    assert jobs.source_files(found, "reviews") == []


def test_jobs_are_given_what_their_results_depend_on(folder):
    found = study(metric="macro_f1", encoding="latin-1")
    assert (found.metric("reviews"), found.metric("sst2")) == ("macro_f1", "accuracy")
    name, option, text = jobs.rows(found, "reviews")
    assert (name, option) == ("reviews", "--settings")
    assert json.loads(text) == {
        "files": {"train": ["train.csv"], "validation": ["dev.csv"]},
        "text": ["title", "body"],
        "label": "stars",
        "encoding": "latin-1",
    }
    assert jobs.source_files(found, "reviews") == ["train.csv", "dev.csv"]
    assert "--glue" not in jobs.tokenise(found, "reviews", "train")
    assert jobs.backbone(found)[-2:] == ["--max-length", "40"]
    assert "--task" not in jobs.backbone(found)


def test_a_classifier_as_backbone(tmp_path):
    source = write_classifier(tmp_path / "source", "bert")
    model = {"backbone": str(source), "finetuned": True, "pooling": "first", "max_length": 20}
    values = {"datasets": ["sst2"], "model": model, "costeff": {"compression": 2}}
    found = load_config(values)
    assert jobs.train_inputs(found, Pipeline("O"), "sst2", "1") == {
        "classifier": "backbones/classifier/",
        "validation": "data/sst2/validation.parquet",
    }
    assert set(jobs.train_inputs(found, Pipeline("D"), "sst2", "1")) == {"parent"}
    assert training_flops(found, Pipeline("O"), "sst2") == 0 < training_flops(found, Pipeline("E"), "sst2")
    assert plan(found).jobs["classifier"] == 1
    trained = load_config(values | {"model": model | {"finetuned": False}})
    assert jobs.train_inputs(trained, Pipeline("O"), "sst2", "1") == {}
    steps, more = (one.steps_of_orderings["sst2"] for one in (found, trained))
    of_o = trained.steps(Pipeline("O"), 4000)
    assert (more["EP"] - steps["EP"], more["ED"] - steps["ED"]) == (of_o, 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"finetuned": True, "pooling": "first"}, "model: finetuned: 'tiny' is no classifier yet"),
        (
            {"finetuned": True, "backbone": "owner/name"},
            "finetuned: .* pooling is mean; set pooling: first",
        ),
    ],
)
def test_a_backbone_that_cannot_be_o_is_refused(model, message):
    with pytest.raises(PipeOpsError, match=message):
        load_config({"datasets": ["sst2"], "model": model})


def test_the_plan_knows_the_encoder_of_own_texts(folder):
    found = study(model={"max_length": 256})
    assert shape_of(found, Pipeline("O")).vocab_size == TINY_OF_OWN_ARCHITECTURE.vocab_size
    assert plan(found).jobs["rows"] == 1
    assert found.steps_of_orderings == {}
