import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeops.data.tasks import TASKS, load_split
from pipeops.errors import PipeOpsError


def write_glue(folder, rows, *, task="sst2", split="train"):
    """A GLUE of one split, in the hub's layout."""
    path = folder / task / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path)
    data_files = f"  - split: {split}\n    path: {task}/{split}-*\n"
    readme = f"---\nconfigs:\n- config_name: {task}\n  data_files:\n{data_files}---\n"
    (folder / "README.md").write_text(readme)
    return str(folder)


ROWS = {"sentence": [f"s{i}" for i in range(10)], "label": [i % 2 for i in range(10)], "idx": list(range(10))}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def load(source, task="sst2", split="train", examples=None):
    return load_split(TASKS[task], split, glue=source, examples=examples)


def test_columns_and_subsets(tmp_path):
    glue = write_glue(tmp_path / "glue", ROWS)
    everything = load(glue)
    assert everything.column_names == ["sentence", "label"]
    assert len(everything) == 10
    some = load(glue, examples=4)
    assert len(some) == 4
    assert some["sentence"] == load(glue, examples=4)["sentence"] != everything["sentence"][:4]
    assert len(load(glue, examples=99)) == 10


def test_missing_split_column_task_and_labels_are_named(tmp_path):
    glue = write_glue(tmp_path / "glue", ROWS)
    with pytest.raises(PipeOpsError, match="has no sst2/validation that can be read"):
        load(glue, split="validation")
    with pytest.raises(PipeOpsError, match="has no mrpc/train that can be read"):
        load(glue, task="mrpc")
    renamed = write_glue(tmp_path / "renamed", {"text": ROWS["sentence"], "label": ROWS["label"]})
    with pytest.raises(PipeOpsError, match=r"sst2/train has no column 'sentence' \(found text, label\)"):
        load(renamed)
    for name, labels in {"regression": [0.5] * 10, "unlabelled": [-1] * 10}.items():
        other = write_glue(tmp_path / name, ROWS | {"label": labels})
        with pytest.raises(PipeOpsError, match=r"sst2/train has labels .* expected class ids \[0, 1\]"):
            load(other)
    holes = write_glue(tmp_path / "holes", ROWS | {"sentence": [None, *ROWS["sentence"][1:]]})
    with pytest.raises(PipeOpsError, match="sst2/train has an empty cell in column 'sentence'"):
        load(holes)
    with pytest.raises(PipeOpsError, match="'/no/such/folder' has no sst2/train"):
        load("/no/such/folder")


def test_a_hub_out_of_reach_is_said(monkeypatch):
    with pytest.raises(PipeOpsError, match="set `glue` to a local folder") as error:
        load("nyu-mll/glue")
    assert "\n" not in str(error.value)


def test_every_message_is_one_line(tmp_path):
    with pytest.raises(PipeOpsError) as error:
        load(write_glue(tmp_path / "glue", ROWS), split="validation")
    assert "\n" not in str(error.value)


def test_generated_tasks_need_nothing():
    for task in ("generated-sentiment", "generated-paraphrase"):
        split = load_split(TASKS[task], "validation", glue="nowhere", examples=50)
        assert split.column_names == [*TASKS[task].columns, "label"]
        assert len(split) == 50
        assert set(split["label"]) == {0, 1}


@pytest.mark.parametrize(
    ("task", "train", "validation"),
    [("mrpc", 3668, 408), ("sst2", 67349, 872), ("qnli", None, 5463), ("qqp", None, None)],
)
def test_real_glue(glue, task, train, validation):
    for split, expected in {"train": train, "validation": validation}.items():
        dataset = load(str(glue), task=task, split=split)
        assert dataset.column_names == [*TASKS[task].columns, "label"]
        assert expected is None or len(dataset) == expected


def test_label_names_are_glues_own(glue):
    # MRPC's first training pair is a paraphrase, SST-2's first validation sentence is positive.
    assert TASKS["mrpc"].labels[load(str(glue), task="mrpc")[0]["label"]] == "equivalent"
    first = load(str(glue), split="validation")[0]
    assert TASKS["sst2"].labels[first["label"]] == "positive", first
