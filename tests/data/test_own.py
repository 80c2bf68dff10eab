"""Reading one's own data: formats, classes, splits, counts, and what is refused in one line."""

import json
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeops.data import own
from pipeops.data.own import gather, held_out, read_about, row_batches, task_of
from pipeops.errors import PipeOpsError
from pipeops.settings import TaskSection

SECRET = "a private sentence that nobody else should ever read"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def section(train, validation=None, *, text="text", label="label", **others):
    files = {"train": str(train)} | ({"validation": str(validation)} if validation else {})
    return TaskSection(files=files, text=text, label=label, **others)


def write_csv(path, rows, header="text,label"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def rows_of(folder, split):
    return pq.read_table(folder / f"{split}.parquet").to_pydict()


def refusal(settings, folder):
    with pytest.raises(PipeOpsError) as error:
        gather("mine", settings, folder)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    assert SECRET not in message
    return message


LEARNABLE = [("one", "b"), ("two", "a"), ("three", "b"), ("four", "a")]
OTHERS = [("five", "a"), ("six", "b")]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    columns = {"text": ["NA", "a, b", 'say "hi"', "ü\nnew line"], "label": [10, 9, 10, 9]}
    path = tmp_path / f"x.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table(columns), path)
    elif suffix == "jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        quoted = ['"' + text.replace('"', '""') + '"' for text in columns["text"]]
        mark, separator = "\ufeff", "," if suffix == "csv" else "\t"
        lines = [f"{text}{separator}{label}" for text, label in zip(quoted, columns["label"], strict=True)]
        path.write_text(mark + "\n".join([f"text{separator}label", *lines]) + "\n")
    about = gather("mine", section(path, path), tmp_path / "out")
    assert about.labels == ("9", "10")
    for split in ("train", "validation"):
        assert rows_of(tmp_path / "out", split) == {"text": columns["text"], "label": [1, 0, 1, 0]}
    assert read_about(tmp_path / "out/about.json") == about


def test_classes_are_sorted_by_name_and_integers_by_number(tmp_path):
    path = write_csv(tmp_path / "x.csv", [("t", name) for name in ("10", "-1", "9") for _ in range(2)])
    assert gather("mine", section(path, path), tmp_path / "out").labels == ("-1", "9", "10")
    path = write_csv(tmp_path / "x.csv", [("t", name) for name in ("10", "b", " 9 ") for _ in range(2)])
    assert gather("mine", section(path, path), tmp_path / "out").labels == ("10", "9", "b")
    longest = "9" * 5000  # Python reads no number as long
    path = write_csv(tmp_path / "x.csv", [("t", name) for name in (longest, "10") for _ in range(2)])
    assert gather("mine", section(path, path), tmp_path / "out").labels == ("10", longest)
    table = {"text": list("abcd"), "label": [2.0, 1.0, 2.0, 1.0]}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    settings = section(tmp_path / "x.parquet", tmp_path / "x.parquet")
    assert gather("mine", settings, tmp_path / "out").labels == ("1", "2")


def test_pairs_keep_the_names_of_their_columns(tmp_path):
    rows = [("q1", "p1", "yes"), ("q2", "p2", "no"), ("q3", "p3", "yes"), ("q4", "p4", "no")]
    path = write_csv(tmp_path / "x.csv", rows, header="question,passage,answer")
    settings = section(path, path, text=["question", "passage"], label="answer")
    about = gather("mine", settings, tmp_path / "out")
    assert about.columns == ("question", "passage")
    assert rows_of(tmp_path / "out", "train") == {
        "text": ["q1", "q2", "q3", "q4"],
        "text2": ["p1", "p2", "p3", "p4"],
        "label": [1, 0, 1, 0],
    }
    task = task_of(tmp_path / "out/train.parquet")
    assert (task.name, task.columns, task.labels) == ("out", ("text", "text2"), ("no", "yes"))


def test_several_files_make_one_split(tmp_path):
    one, two = (write_csv(tmp_path / f"{n}.csv", rows) for n, rows in enumerate((LEARNABLE, OTHERS)))
    settings = TaskSection(
        files={"train": [str(one), str(two)], "validation": str(two)}, text="text", label="label"
    )
    assert gather("mine", settings, tmp_path / "out").rows == {"train": 6, "validation": 2}


def test_files_of_one_split_may_write_labels_as_texts_or_as_numbers(tmp_path):
    for number, label in enumerate((["a", "b"], [[0], [1]])):
        pq.write_table(pa.table({"text": ["x", "y"], "label": label}), tmp_path / f"{number}.parquet")
    paths = [str(tmp_path / f"{number}.parquet") for number in range(2)]
    settings = TaskSection(files={"train": paths}, held_out=0.5, text="text", label="label")
    assert "tasks.mine: train: column 'label' holds list" in refusal(settings, tmp_path / "out")
    for number, labels in enumerate((["1", "2"], [2, 1])):
        pq.write_table(pa.table({"text": ["x", "y"], "label": labels}), tmp_path / f"{number}.parquet")
    both = TaskSection(files={"train": paths, "validation": paths}, text="text", label="label")
    assert gather("mine", both, tmp_path / "out").classes["train"] == {"1": 2, "2": 2}


def test_a_hubs_class_ids_have_names(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["world", "sports"])})
    for split in ("train", "test"):
        rows = {"text": [f"{split}{n}" for n in range(4)], "label": [0, 1, 1, 0]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"hub/{split}.parquet")
    settings = {"hub": str(tmp_path / "hub"), "text": "text", "label": "label"}
    about = gather("mine", TaskSection(**settings, splits={"validation": "test"}), tmp_path / "out")
    assert about.labels == ("sports", "world")
    assert rows_of(tmp_path / "out", "validation")["label"] == [1, 0, 0, 1]
    message = refusal(TaskSection(**settings), tmp_path / "out")
    assert "tasks.mine.hub: " in message
    assert "has no validation that can be read" in message
    absent = TaskSection(hub="nobody/nothing-at-all", text="text", label="label", held_out=0.5)
    assert "tasks.mine.hub: " in refusal(absent, tmp_path / "out")


# Held-out rows.


def test_what_is_held_out_by_hand():
    labels = np.repeat([0, 1, 2], [10, 5, 2])
    out = held_out(labels, np.arange(17, dtype=np.uint64), fraction=0.2, seed=0)
    assert np.bincount(labels[out]).tolist() == [2, 1, 1]
    again = held_out(labels, np.arange(17, dtype=np.uint64), fraction=0.2, seed=0)
    other = held_out(labels, np.arange(17, dtype=np.uint64), fraction=0.2, seed=1)
    assert (out == again).all()
    assert (out != other).any()


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=60),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
def test_groups_are_held_out_whole_and_never_further_from_their_share_than_nothing(rows, fraction, seed):
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    out = held_out(labels, groups, fraction=fraction, seed=seed)
    assert not set(groups[out]) & set(groups[~out])
    counts = np.bincount(labels)
    wanted = np.clip(np.round(fraction * counts), 1, np.maximum(counts - 1, 1))
    left = np.bincount(labels[out], minlength=len(counts)) - wanted
    assert np.abs(left).sum() <= wanted.sum()


def test_single_rows_are_held_out_in_the_classes_shares():
    labels = np.random.default_rng(0).choice(3, 2000, p=[0.7, 0.25, 0.05])
    out = held_out(labels, np.arange(2000, dtype=np.uint64), fraction=0.1, seed=3)
    assert np.bincount(labels[out]).tolist() == np.round(0.1 * np.bincount(labels)).tolist()


def test_held_out_rows_are_split_once_and_the_same_texts_stay_together(tmp_path):
    rows = [(f"t{number % 30}", "ab"[number % 2]) for number in range(60)]
    path = write_csv(tmp_path / "x.csv", rows)
    about = gather("mine", section(path, held_out=0.2, seed=4), tmp_path / "out")
    found = {split: rows_of(tmp_path / "out", split) for split in ("train", "validation")}
    assert {split: len(one["text"]) for split, one in found.items()} == about.rows
    assert about.rows == {"train": 48, "validation": 12}
    assert about.overlapping == 0
    assert not set(found["train"]["text"]) & set(found["validation"]["text"])
    everything = [*found["train"]["text"], *found["validation"]["text"]]
    assert Counter(everything) == Counter(text for text, _ in rows)
    before = (tmp_path / "out/train.parquet").read_bytes()
    gather("mine", section(path, held_out=0.2, seed=4), tmp_path / "out")
    assert (tmp_path / "out/train.parquet").read_bytes() == before


def test_a_group_is_held_out_whole(tmp_path):
    rows = [(f"t{number}", "ab"[number % 2], f"author{number // 6}") for number in range(60)]
    path = write_csv(tmp_path / "x.csv", rows, header="text,label,author")
    gather("mine", section(path, held_out=0.2, group="author"), tmp_path / "out")
    of = {text: author for text, _, author in rows}
    authors = {
        split: {of[text] for text in rows_of(tmp_path / "out", split)["text"]}
        for split in ("train", "validation")
    }
    assert len(authors["validation"]) == 2
    assert not authors["train"] & authors["validation"]


# Counts and warnings.


def test_duplicates_contradictions_and_overlap_are_counted_and_warned_about(tmp_path):
    train = [("same", "a"), ("same", "a"), ("same", "b"), ("other", "b"), ("third", "a")]
    dev = [("same", "a"), ("other", "b"), ("new", "a")]
    paths = [write_csv(tmp_path / f"{name}.csv", rows) for name, rows in (("train", train), ("dev", dev))]
    about = gather("mine", section(*paths), tmp_path / "out")
    assert about.repeated == {"train": 2, "validation": 0}
    assert (about.contradictory, about.overlapping) == (3, 2)
    text = about.text("mine")
    assert "warning: tasks.mine: 2 of 3 validation texts stand in train too" in text
    assert "warning: tasks.mine: 3 training texts also stand under another label" in text


def test_imbalance_and_absent_classes_are_warned_about(tmp_path):
    train = [*((f"t{n}", "often") for n in range(30)), ("x", "rare"), ("y", "rare")]
    paths = [write_csv(tmp_path / "train.csv", train), write_csv(tmp_path / "dev.csv", [("z", "often")])]
    about = gather("mine", section(*paths), tmp_path / "out")
    assert about.classes == {"train": {"often": 30, "rare": 2}, "validation": {"often": 1, "rare": 0}}
    assert any("'rare': fewer than a tenth" in line and "93.8%" in line for line in about.warnings())
    assert "validation has no row of 'rare'" in about.warnings()
    assert re.search(r"\| class often +\| 30 \(93.8%\) \| 1 \(100.0%\) +\|", about.text("mine"))


def test_empty_texts_are_counted_and_left_out_on_request(tmp_path):
    rows = [*LEARNABLE, ("", "a"), (" ", "b")]
    path = write_csv(tmp_path / "x.csv", rows)
    about = gather("mine", section(path, path), tmp_path / "out")
    assert (about.rows["train"], about.empty["train"], about.dropped["train"]) == (6, 2, 0)
    assert "2 rows of train have no text; drop_empty: true leaves them out" in about.warnings()
    about = gather("mine", section(path, path, drop_empty=True), tmp_path / "out")
    assert (about.rows["train"], about.empty["train"], about.dropped["train"]) == (4, 0, 2)


def test_missing_cells_are_empty_texts(tmp_path):
    pq.write_table(pa.table({"text": ["a", None, "b", "c"], "label": [0, 1, 0, 1]}), tmp_path / "x.parquet")
    about = gather("mine", section(*[tmp_path / "x.parquet"] * 2), tmp_path / "out")
    assert about.empty["train"] == 1
    assert rows_of(tmp_path / "out", "train")["text"] == ["a", "", "b", "c"]


def test_missing_labels_are_refused_or_left_out_on_request(tmp_path):
    path = write_csv(tmp_path / "x.csv", [*LEARNABLE, (SECRET, ""), ("x", " ")])
    message = refusal(section(path, path), tmp_path / "out")
    assert "tasks.mine: train: 2 rows have no 'label', the first is row 5; " in message
    assert "drop_empty: true" in message
    about = gather("mine", section(path, path, drop_empty=True), tmp_path / "out")
    assert about.rows["train"] == 4


def test_long_texts_are_read_whole(tmp_path):
    path = write_csv(tmp_path / "x.csv", [("x" * 100_000, "a"), ("y" * 300_000, "b"), *LEARNABLE])
    gather("mine", section(path, path), tmp_path / "out")
    assert len(rows_of(tmp_path / "out", "train")["text"][1]) == 300_000


# Refusals.


def test_classes_that_cannot_be_learned_are_refused(tmp_path):
    path = write_csv(tmp_path / "x.csv", [*LEARNABLE, (SECRET, "once")])
    for settings in (section(path, path), section(path, held_out=0.5)):
        assert "'once': fewer than 2 training rows in 1 of 3 classes" in refusal(settings, tmp_path / "out")
    path = write_csv(tmp_path / "x.csv", [("x", "only"), ("y", "only")])
    assert "column 'label' has one class only, 'only'" in refusal(section(path, path), tmp_path / "out")
    path = write_csv(tmp_path / "x.csv", [("x", ""), ("y", "")])
    assert "no label at all" in refusal(section(path, path, drop_empty=True), tmp_path / "out")


def test_classes_that_no_training_row_has_are_refused(tmp_path):
    train, dev = (
        write_csv(tmp_path / f"{n}.csv", rows) for n, rows in (("t", LEARNABLE), ("d", [("x", "c")]))
    )
    message = refusal(section(train, dev), tmp_path / "out")
    assert message.startswith("tasks.mine: validation has 1 labels that no training row has: 'c'; ")


def test_texts_taken_for_labels_are_not_printed_in_full(tmp_path):
    path = write_csv(tmp_path / "x.csv", [(f"{n}", f"{SECRET} {n}") for n in range(4)])
    assert "'a private sentenc...', " in refusal(section(path, path), tmp_path / "out")


def test_a_class_within_one_group_cannot_be_held_out(tmp_path):
    rows = [*((f"t{n}", "a", n) for n in range(8)), ("x", "b", "same"), ("y", "b", "same")]
    path = write_csv(tmp_path / "x.csv", rows, header="text,label,author")
    message = refusal(section(path, held_out=0.3, group="author"), tmp_path / "out")
    assert "tasks.mine.held_out: no held-out row of 'b'" in message


def test_another_encoding_is_named_and_can_be_given(tmp_path):
    path = tmp_path / "x.csv"
    rows = "".join(f"{SECRET} {n},{'ab'[n % 2]}\n" for n in range(400))
    path.write_bytes(f"text,label\n{rows}caf\u00e9,a\n".encode("latin-1"))
    message = refusal(section(path, path), tmp_path / "out")
    assert "x.csv: is not UTF-8" in message
    assert "encoding: latin-1" in message
    gather("mine", section(path, path, encoding="latin-1"), tmp_path / "out")
    assert rows_of(tmp_path / "out", "train")["text"][-1] == "caf\u00e9"
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"text": "caf\u00e9", "label": "a"}\n'.encode("latin-1"))
    assert "x.jsonl, line 1: is not UTF-8; convert the file" in refusal(section(path, path), tmp_path / "out")
    path.write_bytes(b'{"text": "caf", "label": "a"}\n' * 50_000 + path.read_bytes())
    assert "line 50001: is not UTF-8; convert the file" in refusal(section(path, path), tmp_path / "out")


@pytest.mark.parametrize(
    "rows",
    [
        [*LEARNABLE, ('"' + SECRET, "a"), *LEARNABLE],
        [*LEARNABLE, (SECRET, "a", "b", "c")],
    ],
    ids=["a quote that is not closed", "too many cells"],
)
def test_broken_csv_is_refused_with_its_line(tmp_path, rows):
    path = write_csv(tmp_path / "x.csv", rows)
    message = refusal(section(path, path), tmp_path / "out")
    assert "x.csv, " in message
    assert "cannot be read; check its quotes and separators" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", f'{{"text": "{SECRET}", "label": "a"}}\n{{"text": "{SECRET}", \n', "x.jsonl"),
        ("x.parquet", SECRET, "x.parquet"),
        ("x.csv", "text,label\n", "has no rows"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    assert message in refusal(section(*[tmp_path / name] * 2), tmp_path / "out")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [["a"], ["b"]], "label": [0, 1]}, "column 'text' holds list"),
        ({"text": ["a", "b"], "label": [[0], [1]]}, "column 'label' holds list"),
        ({"text": ["a", "b"], "label": [0.5, 1.0]}, "column 'label' holds fractions"),
        ({"text": ["a", "b"], "label": [float("inf"), 1.0]}, "column 'label' holds fractions"),
        ({"texts": ["a", "b"], "label": [0, 1]}, r"has no column 'text' (did you mean 'texts'?)"),
    ],
)
def test_columns_of_another_kind_are_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert message in refusal(section(*[tmp_path / "x.parquet"] * 2), tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ["b"], "label": "x"}', "column 'text' holds values of several kinds in rows 1 to 2"),
        ('{"text": "\\ud800", "label": "x"}', "x.jsonl, row 2: a text that is not UTF-8"),
    ],
)
def test_cells_of_json_that_make_no_column_are_refused(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n' + line)
    assert message in refusal(section(path, path), tmp_path / "out")


def test_rows_with_more_cells_than_there_are_names_are_refused(tmp_path):
    path = write_csv(tmp_path / "x.csv", [(*row, "c") for row in LEARNABLE])
    message = refusal(section(path, path), tmp_path / "out")
    assert "its rows have more cells than the first line names" in message


def test_reading_shows_how_long_it_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeops.progress.LINE_EVERY", 0)
    path = write_csv(tmp_path / "x.csv", [(f"t{n}", "ab"[n % 2]) for n in range(3000)])
    gather("mine", section(path, held_out=0.5), tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"{what} train: {done}%" for what in ("read", "write") for done in (33, 67, 100)
    ]
    assert all(line.endswith(" s left") for line in lines)


# Rows as others read them.


def test_rows_are_drawn_once(tmp_path):
    path = write_csv(tmp_path / "x.csv", [(f"t{n}", "ab"[n % 2]) for n in range(3000)])
    gather("mine", section(path, path), tmp_path / "out")
    rows = tmp_path / "out/train.parquet"

    def texts(examples):
        return [text for batch in row_batches(rows, examples=examples) for text in batch["text"].to_pylist()]

    assert texts(None) == texts(9999) == [f"t{n}" for n in range(3000)]
    some = texts(40)
    assert len(set(some)) == 40
    assert some == texts(40)
    assert some == sorted(some, key=lambda text: int(text[1:]))


def test_absent_and_damaged_rows_are_named(tmp_path):
    with pytest.raises(PipeOpsError, match="about.json: not found; read the rows first"):
        task_of(tmp_path / "train.parquet")
    (tmp_path / "about.json").write_text("{}")
    with pytest.raises(PipeOpsError, match="about.json: damaged"):
        task_of(tmp_path / "train.parquet")
    with pytest.raises(PipeOpsError, match="train.parquet: not found"):
        next(row_batches(tmp_path / "train.parquet", examples=None))


@pytest.mark.parametrize("rows", [LEARNABLE[::-1], LEARNABLE + OTHERS, LEARNABLE[:2]])
def test_a_file_that_changes_between_its_two_readings_is_refused(tmp_path, monkeypatch, rows):
    path = write_csv(tmp_path / "x.csv", LEARNABLE)
    settings = section(path, held_out=0.5)

    def meanwhile(*arguments):
        write_csv(tmp_path / "new.csv", rows).replace(path)
        return about(*arguments)

    about = own._about
    monkeypatch.setattr(own, "_about", meanwhile)
    message = refusal(settings, tmp_path / "out")
    assert message == f"{path}: changed while it was read; run again once it is whole"
    assert list((tmp_path / "out").iterdir()) == []
