"""Answers of exported models, and their file."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_models import tiny_shape
from helpers import unsealed
from measured import SHAPE, examples, exported

from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.measuring.answers import read_answers
from pipeops.measuring.evaluate import answers, evaluate
from pipeops.onnx.runtime import Profiler


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    exported(folder / "DE", SHAPE)
    examples(folder, rows=120)
    evaluated(folder, folder / "DE.parquet")
    return folder


def evaluated(folder, output, model="DE"):
    evaluate(folder / model, folder / "validation.parquet", output, dataset="sst2", pipeline="DE", seed=3)
    return output


def profiler(folder, precision):
    name = "profile-int8.onnx" if precision == "int8" else "profile.onnx"
    return Profiler.load(folder / "DE" / name, threads=1)


def test_every_exit_of_every_example_is_stored(folder):
    found, split = read_answers(folder / "DE.parquet"), load_tokenised(folder / "validation.parquet")
    assert found.lengths.tolist() == [len(ids) for ids in split.input_ids]
    assert found.label_ids.tolist() == split.label_ids.tolist()
    for precision, inference in (("fp32", "L"), ("int8", "LQ")):
        model = profiler(folder, precision)
        expected = [model.run(ids[None], np.ones_like(ids)[None]).logits[0] for ids in split.input_ids]
        np.testing.assert_array_equal(found.of(inference), expected)
    assert (found.of("") != found.of("Q")).any()
    assert found.of("").std(axis=0).min() > 1e-3


def test_the_file_says_what_it_holds(folder):
    found = read_answers(folder / "DE.parquet", dataset="sst2", pipeline="DE", seed=3, labels=("no", "yes"))
    assert found.shape == SHAPE
    assert found.max_length == 12
    assert found.record["provenance"]["packages"]["onnxruntime"]
    table = pq.read_table(folder / "DE.parquet")
    assert table.column_names == ["example", "length", "label", "fp32", "int8"]
    assert table.schema.field("int8").type == pa.list_(pa.float32(), 6)


def test_same_graphs_and_data_give_the_same_bytes(folder, tmp_path):
    again = evaluated(folder, tmp_path / "DE.parquet")
    assert again.read_bytes() == (folder / "DE.parquet").read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_answer_does_not_depend_on_the_other_examples(folder, precision):
    split = load_tokenised(folder / "validation.parquet")
    order = np.random.default_rng(0).permutation(len(split))[:50]
    some = load_tokenised(folder / "validation.parquet")
    object.__setattr__(some, "input_ids", [split.input_ids[i] for i in order])
    model = profiler(folder, precision)
    np.testing.assert_array_equal(answers(model, some), answers(model, split)[order])


def test_equal_inputs_are_run_once(folder):
    split = load_tokenised(folder / "validation.parquet")
    object.__setattr__(split, "input_ids", [split.input_ids[i] for i in (0, 1, 0, 0, 1)])
    calls, model = [], profiler(folder, "fp32")

    class Counting:
        def run(self, ids, mask):
            calls.append(ids)
            return model.run(ids, mask)

    assert answers(Counting(), split).shape == (5, 3, 2)
    assert len(calls) == 2


def test_graphs_of_two_models_are_refused(folder, tmp_path):
    exported(tmp_path / "DE", tiny_shape(vocab_size=60, exit_layers=(3,)))
    (tmp_path / "DE/profile.onnx").write_bytes((folder / "DE/profile.onnx").read_bytes())
    unsealed(tmp_path)
    examples(tmp_path)
    with pytest.raises(PipeOpsError, match="have other shapes; export again"):
        evaluated(tmp_path, tmp_path / "x.parquet")


def test_data_with_other_classes_are_refused(folder, tmp_path):
    exported(tmp_path / "DE", tiny_shape(vocab_size=60, num_labels=3))
    examples(tmp_path)
    with pytest.raises(PipeOpsError, match=r"answers 3 classes, .*validation.parquet has 2; train on this"):
        evaluated(tmp_path, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"seed": 4}, r"DE\.parquet: answers of seed 3, the study asks for 4; evaluate again"),
        ({"pipeline": "ED"}, "answers of pipeline 'DE', the study asks for 'ED'"),
        ({"dataset": "qqp"}, "answers of dataset 'sst2', the study asks for 'qqp'"),
        ({"labels": ("yes", "no")}, r"answers of labels \('no', 'yes'\), the study asks for \('yes', 'no'\)"),
    ],
)
def test_answers_of_something_else_are_refused(folder, wanted, message):
    with pytest.raises(PipeOpsError, match=message):
        read_answers(folder / "DE.parquet", **wanted)


def refused(path, message):
    with pytest.raises(PipeOpsError, match=message) as caught:
        read_answers(path)
    assert "\n" not in str(caught.value)


def test_absent_and_damaged_answers_are_refused(folder, tmp_path):
    path = tmp_path / "DE.parquet"
    refused(path, r"DE\.parquet: not found; evaluate the model first")
    whole = (folder / "DE.parquet").read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        refused(path, r"DE\.parquet: not a file of answers \(.*\); evaluate again")
    refused(folder / "validation.parquet", "not a file of answers")


def test_answers_that_are_none_are_refused(folder, tmp_path):
    table = pq.read_table(folder / "DE.parquet")
    path = tmp_path / "DE.parquet"
    pq.write_table(table.slice(0, 0), path)
    refused(path, "no answers, or some that are no numbers")
    broken = pa.FixedSizeListArray.from_arrays(pa.array(np.full(6 * len(table), np.nan, np.float32)), 6)
    pq.write_table(table.set_column(3, "fp32", broken), path)
    refused(path, "or some that are no numbers")
    about = json.loads(table.schema.metadata[b"pipeops"])
    about["shape"]["num_labels"] = 3
    pq.write_table(table.replace_schema_metadata({"pipeops": json.dumps(about)}), path)
    refused(path, "not a file of answers")
