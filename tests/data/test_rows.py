"""Labelled rows of one's own, in every format, and what is refused."""

import pandas as pd
import pytest

from pipeops.data.rows import Rows, label_ids, read_rows, read_table
from pipeops.errors import PipeOpsError

TEXTS = ["a b", 'quoted, "text"\nof two lines', "NA", "", "ä 😀"]
LABELS = ["yes", "no", "None", "1", "01"]


def write(folder, suffix):
    path = folder / f"rows{suffix}"
    table = pd.DataFrame({"text": TEXTS, "label": LABELS, "other": range(5)})
    if suffix == ".parquet":
        table.to_parquet(path)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",", encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_cells_as_they_are_written(tmp_path, suffix):
    rows = read_rows(write(tmp_path, suffix), text=["text"], label="label")
    assert rows.texts == [(text,) for text in TEXTS]
    assert rows.labels == LABELS
    pairs = read_rows(write(tmp_path, suffix), text=["text", "label"], label="other")
    assert pairs.texts == list(zip(TEXTS, LABELS, strict=True))
    assert pairs.labels == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", None, "x.csv: not found; name a file of labelled texts"),
        ("x.csv", b"", "x.csv: is empty; its first line must name the columns"),
        ("x.csv", b"text,label\n", "x.csv: has no rows; add some"),
        (
            "x.csv",
            b"texts,label\na,b\n",
            "has no column 'text' (did you mean 'texts'?); it has 'texts',",
        ),
        ("x.csv", b"text,label\n\xff\xfe,b\n", "x.csv: is not UTF-8; convert it, such as by iconv"),
        ("x.csv", b"text,text,label\na,b,c\n", "x.csv: has 2 columns 'text'; rename one"),
        ("x.csv", b'text,label\n"a,b\n', "cannot be read; check its quotes and separators"),
        ("x.csv", b"text,label\na,b\nc,d,e\n", "x.csv, line 3: cannot be read; check its quotes and"),
        ("x.jsonl", b'{"text": "a", "label": "b"}\n{"text": "a"}\n', "x.jsonl, row 2: has no 'label'"),
        ("x.jsonl", b'{"text": ["a"], "label": "b"}\n', "x.jsonl, row 1: 'text' is no text"),
        ("x.jsonl", b'{"text": 5, "label": "b"}\n', "x.jsonl, row 1: 'text' is no text"),
        ("x.jsonl", b'{"text": "a", "label": 0.5}\n', "x.jsonl: column 'label' holds fractions"),
        ("x.jsonl", b'{"text": "a", "label": [0]}\n', "x.jsonl: column 'label' holds list"),
        (
            "x.jsonl",
            b'{"text": "a", "label": "b"}\n{"text": "a", "label": 1}\n',
            "x.jsonl: column 'label' holds values of several kinds in rows 1 to 2; write them alike",
        ),
        ("x.jsonl", b"[1]", "x.jsonl, line 1: is no JSON object; write one object a line"),
        ("x.jsonl", b"{", "x.jsonl, line 1: is no JSON object"),
        ("x.jsonl", b'{"text": "\xff"}', "x.jsonl, line 1: is not UTF-8; convert the file"),
        ("x.jsonl", b"", "x.jsonl: is empty; write one JSON object a line"),
        ("x.parquet", b"PAR1", "x.parquet: is no readable Parquet file"),
        (
            "x.xlsx",
            b"",
            "x.xlsx: its name ends in none of .csv, .tsv, .jsonl, .parquet; convert or rename it",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PipeOpsError) as refusal:
        read_rows(tmp_path / name, text=["text"], label="label")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_rows_are_numbered_through_the_batches(tmp_path):
    rows = ["a,b\n"] * 2500
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(rows))
    assert len(read_rows(tmp_path / "x.csv", text=["text"], label="label").texts) == 2500
    lines = ['{"text": "a", "label": "b"}\n'] * 2500
    lines[2345] = '{"text": "a"}\n'
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    with pytest.raises(PipeOpsError, match="x.jsonl, row 2346: has no 'label'"):
        read_rows(tmp_path / "x.jsonl", text=["text"], label="label")


def test_all_columns_of_a_table_keep_their_types(tmp_path):
    lines = ['{"n": 1, "text": "NA", "x": 0.5}', '{"n": null, "text": "b", "more": true}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    table = read_table(tmp_path / "x.jsonl")
    assert table.columns.tolist() == ["n", "text", "x", "more"]
    assert [table["n"][0], table["n"][1], table["text"][0]] == [1, None, "NA"]
    with pytest.raises(PipeOpsError, match="x.csv: has no rows; add some"):
        (tmp_path / "x.csv").write_text("text,label\n")
        read_table(tmp_path / "x.csv")


def ids(labels, names):
    found, how = label_ids(Rows(path="x.csv", texts=[], labels=labels), names)
    return found.tolist(), how


def test_labels_are_matched_by_name_and_else_by_id():
    assert ids(["no", "yes", "no"], ["no", "yes"]) == ([0, 1, 0], "name")
    assert ids(["1", "0"], ["no", "yes"]) == ([1, 0], "id")
    # Where ids are the names of other classes, names win, and a column is matched in one way.
    assert ids(["1", "2"], ["2", "1", "0"]) == ([1, 0], "name")
    assert ids(["0", "1"], ["1", "2"]) == ([0, 1], "id")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["no", "yess"],
            "x.csv, row 2: the model has no label 'yess' (did you mean 'yes'?); it has",
        ),
        (["0", "2"], "x.csv, row 2: the model has no label '2'; it has 'no', 'yes'"),
        (["-1"], "row 1: the model has no label '-1'"),
        (["no", "1"], "row 2: the model has no label '1'"),
        (["no", ""], "row 2: the model has no label ''"),
    ],
)
def test_labels_that_the_model_does_not_have_are_named(labels, message):
    with pytest.raises(PipeOpsError) as refusal:
        ids(labels, ["no", "yes"])
    assert message in str(refusal.value)


def test_of_many_classes_only_some_are_listed():
    with pytest.raises(PipeOpsError, match=r"it has 'c0', .*, 'c9' and 67 more$"):
        ids(["x"], [f"c{number}" for number in range(77)])
