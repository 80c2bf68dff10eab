"""The `tiny` backbone of one's own texts."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeops.errors import PipeOpsError
from pipeops.models.architectures import TINY_OF_OWN_ARCHITECTURE, architecture
from pipeops.models.backbones import load_backbone, load_tokenizer
from pipeops.settings import PretrainingSection
from pipeops.training.pretraining import SPECIAL_TOKENS, pretrain_tiny_on, subword_tokenizer

TEXTS = ["Die Äpfel sind gut", "die Birnen sind schlecht", "\u732b is a cat"] * 5


def write_rows(path, columns):
    pq.write_table(pa.table(columns | {"label": [0] * len(columns["text"])}), path)
    return path


def test_no_text_is_unknown_and_case_has_no_say():
    tokenizer = subword_tokenizer(TEXTS)
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL_TOKENS)
    for text in (*TEXTS, "never seen: \U0001f600"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text.lower()
    pair = tokenizer.convert_ids_to_tokens(tokenizer("gut", "gut")["input_ids"])
    assert [token for token in pair if token in SPECIAL_TOKENS] == ["<s>", "</s>", "</s>", "</s>"]


def test_the_encoder_has_the_planned_shape_whatever_the_texts(tmp_path):
    rows = [
        write_rows(tmp_path / "one.parquet", {"text": TEXTS}),
        write_rows(tmp_path / "two.parquet", {"text": ["a"], "text2": ["question"]}),
    ]
    settings = PretrainingSection(examples=8, batch_size=4, threads=1)
    for name in ("a", "b"):
        pretrain_tiny_on(rows, tmp_path / name, settings, max_length=12)
    assert architecture(str(tmp_path / "a")) == TINY_OF_OWN_ARCHITECTURE
    for file in ("tokenizer.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    vocabulary = json.loads((tmp_path / "a/tokenizer.json").read_text())["model"]["vocab"]
    assert "\u0120question" in vocabulary
    load_backbone(tmp_path / "a")
    assert load_tokenizer(tmp_path / "a").model_max_length == TINY_OF_OWN_ARCHITECTURE.max_length


def test_rows_without_text_are_refused(tmp_path):
    rows = write_rows(tmp_path / "x.parquet", {"text": ["", " "]})
    with pytest.raises(PipeOpsError, match="has no texts to pretrain 'tiny' on"):
        pretrain_tiny_on([rows], tmp_path / "out", PretrainingSection(), max_length=8)
