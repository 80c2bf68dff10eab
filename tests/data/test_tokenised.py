import itertools

import numpy as np
import pyarrow as pa
import pytest
from helpers import write_backbone, write_examples

from pipeops.data.synthetic import generate
from pipeops.data.tasks import TASKS, Task, split_batches
from pipeops.data.tokenised import few_characters, load_tokenised, longest_first, pad, tokenise
from pipeops.errors import PipeOpsError
from pipeops.models.backbones import load_tokenizer
from pipeops.onnx import classify
from pipeops.training.pretraining import word_tokenizer


def first_rows(task):
    return split_batches(task, "train", glue="", examples=20)


def test_round_trip_of_a_generated_task(tmp_path):
    task, tokenizer = TASKS["generated-paraphrase"], word_tokenizer()
    counts = tokenise(task, first_rows(task), tokenizer, tmp_path / "a.parquet", max_length=64)
    assert (counts.examples, counts.truncated, sum(counts.classes.values())) == (20, 0, 20)
    split = load_tokenised(tmp_path / "a.parquet")
    rows = generate(task.name, "train", 20)
    assert split.label_ids.tolist() == rows["label"]
    assert split.labels == task.labels
    first, second = (tokenizer.tokenize(rows[column][0]) for column in task.columns)
    assert tokenizer.convert_ids_to_tokens(split.input_ids[0]) == [
        "<s>",
        *first,
        "</s>",
        "</s>",
        *second,
        "</s>",
    ]
    assert all(tokenizer.unk_token_id not in ids for ids in split.input_ids)
    tokenise(task, first_rows(task), tokenizer, tmp_path / "b.parquet", max_length=64)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_tokenizer_without_a_separator_ends_a_segment_as_it_ends_a_text(tmp_path):
    task, tokenizer = TASKS["generated-sentiment"], word_tokenizer()
    tokenizer.eos_token, tokenizer.sep_token = tokenizer.sep_token, None
    tokenise(task, first_rows(task), tokenizer, tmp_path / "a.parquet", max_length=64)
    assert load_tokenised(tmp_path / "a.parquet").sep_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["pad_token", "sep_token"])
def test_a_tokenizer_that_lacks_a_token_is_refused_before_anything_is_written(tmp_path, name):
    tokenizer = word_tokenizer()
    setattr(tokenizer, name, None)
    tokenizer.eos_token = None
    named = "eos_token" if name == "sep_token" else name
    with pytest.raises(PipeOpsError, match=f"the backbone's tokenizer has no {named}; name it in its tok"):
        tokenise(TASKS["sst2"], [], tokenizer, tmp_path / "split.parquet", max_length=9)
    assert not (tmp_path / "split.parquet").exists()


def test_longer_inputs_are_truncated(tmp_path):
    task, tokenizer = TASKS["generated-sentiment"], word_tokenizer()
    counts = tokenise(task, first_rows(task), tokenizer, tmp_path / "a.parquet", max_length=8)
    assert counts.truncated == sum(
        len(tokenizer(text)["input_ids"]) > 8 for text in generate(task.name, "train", 20)["sentence"]
    )
    split = load_tokenised(tmp_path / "a.parquet")
    assert max(map(len, split.input_ids)) == 8
    assert {ids[-1] for ids in split.input_ids} == {tokenizer.sep_token_id}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pair", [False, True])
def test_inputs_are_cut_as_the_library_cuts_them(tmp_path, side, pair):
    tokenizer = word_tokenizer()
    tokenizer.truncation_side = side
    words, rng = list(tokenizer.get_vocab())[5:], np.random.default_rng(0)
    texts = [[" ".join(rng.choice(words, n)) for n in rng.integers(0, 14, 200)] for _ in range(1 + pair)]
    columns = ("text", "text2")[: len(texts)]
    task = Task(name="x", columns=columns, labels=("a", "b"), rows={}, mean_tokens=0)
    batch = pa.table([*texts, [0] * 200], names=[*columns, "label"])
    counts = tokenise(task, [batch], tokenizer, tmp_path / "a.parquet", max_length=9)
    expected = tokenizer(*texts, truncation="longest_first", max_length=9)["input_ids"]
    assert [ids.tolist() for ids in load_tokenised(tmp_path / "a.parquet").input_ids] == expected
    assert counts.truncated == sum(len(ids) > 9 for ids in tokenizer(*texts)["input_ids"]) > 0
    assert "1 of 2 classes have no example" in counts.text("x", 9)


def test_a_deployed_model_cuts_alike():
    for first, second, room in itertools.product(range(9), range(9), range(1, 9)):
        if first + second > room:
            assert longest_first([first, second], room) == classify._longest_first([first, second], room)


def test_pairs_of_very_long_texts_take_little_memory(tmp_path):
    tokenizer = word_tokenizer()
    task = Task(name="x", columns=("text", "text2"), labels=("a",), rows={}, mean_tokens=0)
    long = "the " * 25_000
    batch = pa.table([[long] * 3, [long] * 3, [0] * 3], names=["text", "text2", "label"])
    tokenise(task, [batch], tokenizer, tmp_path / "a.parquet", max_length=16)
    assert [len(ids) for ids in load_tokenised(tmp_path / "a.parquet").input_ids] == [16] * 3
    # With the library's own truncation one such pair keeps millions of combinations.
    encoded = list(few_characters([["a" * 800_000] * 4, [""] * 4]))
    assert [len(columns[0]) for columns in encoded] == [2, 2]


def test_pad_by_hand():
    ids, mask = pad([np.array([5, 6, 7]), np.array([8])], pad_token_id=1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = pad([np.array([8])], pad_token_id=0, length=3)
    assert ids.tolist() == [[8, 0, 0]]
    assert mask.tolist() == [[1, 0, 0]]


def test_padded_example(tmp_path):
    split = load_tokenised(write_examples(tmp_path / "a.parquet"))
    ids, mask = split.padded(3)
    assert ids.shape == mask.shape == (1, 12)
    assert ids[0, : mask.sum()].tolist() == split.input_ids[3].tolist()


@pytest.mark.parametrize("damage", ["truncated", "foreign", "absent"])
def test_damaged_files_are_named(tmp_path, damage):
    path = write_examples(tmp_path / "a.parquet")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "foreign":
        path.write_text("text")
    else:
        path.unlink()
    expected = "not found; tokenise it first" if damage == "absent" else "not readable .* tokenise again"
    with pytest.raises(PipeOpsError, match=rf"a.parquet: {expected}") as error:
        load_tokenised(path)
    assert "\n" not in str(error.value)


def test_a_folders_tokenizer(tmp_path):
    tokenizer = load_tokenizer(write_backbone(tmp_path))
    assert tokenizer.model_max_length == 22
