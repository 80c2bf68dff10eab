"""V on models: same answers, before and after, whatever the family and the kind of tokenizer."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from helpers import DISTINCT, tiny_encoder_config
from made_tokenizers import NAMES, TOKENIZERS, words_of, write_base
from transformers import AutoModel, AutoTokenizer

from pipeops.data.tasks import Task
from pipeops.data.tokenised import load_tokenised, tokenise
from pipeops.errors import PipeOpsError
from pipeops.integrity import seal
from pipeops.models.architectures import architecture
from pipeops.models.backbones import load_backbone, load_tokenizer, save_backbone
from pipeops.models.vocabulary import VOCABULARY, Vocabulary, read_vocabulary
from pipeops.onnx.export import export
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import Profiler
from pipeops.operators.builtin import CostEffSection, PruningSection, VocabularySection
from pipeops.operators.declaration import NoSettings, Setup
from pipeops.operators.registry import shape_after
from pipeops.operators.vocabulary import prune_backbones
from pipeops.pipeline import Pipeline, closure
from pipeops.settings import ModelSection, TrainingSettings
from pipeops.training.checkpoints import load_model
from pipeops.training.job import Job, train

SETTINGS = TrainingSettings(epochs=1, batch_size=16, learning_rate=5e-3)
OWN = {
    "P": PruningSection(keep_heads=0.5, keep_ffn=0.25),
    "C": CostEffSection(heads=2, ffn=6, rank=6),
    "V": VocabularySection(),
}
TASK = Task(
    name="made-up",
    columns=("text",),
    labels=("no", "yes"),
    rows={"train": 48, "validation": 48},
    mean_tokens=8,
)
TEXTS = words_of(11, TASK.rows["train"])
UNSEEN = [*words_of(12, 20), "Привет 🙂", "zz top"]
MAX_LENGTH = 20
EVERY = [*((family, "Unigram") for family in DISTINCT), *(("roberta", name) for name in NAMES)]


def write_data(path: Path, backbone: Path, texts=TEXTS) -> Path:
    table = pa.table({"text": texts, "label": [number % 2 for number in range(len(texts))]})
    tokenise(TASK, [table], load_tokenizer(backbone), path, max_length=MAX_LENGTH)
    return path


def prune(base: Path, output: Path, **options) -> Vocabulary:
    return prune_backbones(base, {base: output}, lambda: [TEXTS], VocabularySection(**options))


def trained(folder: Path, pipelines: str, *, inputs: Mapping[str, Path] | None = None) -> None:
    """Train pipelines and those that they come from, as the workflow does."""
    for pipeline in closure(map(Pipeline, pipelines.split())):
        letter, parent = pipeline.operator, pipeline.parent
        prepared = folder / ("pruned" if pipeline.transformed else "whole")
        job = Job(
            operator=letter,
            parent=folder / str(parent) if parent else None,
            backbone=prepared / "base",
            data=prepared / "train.parquet",
            seed=1,
            settings=SETTINGS,
            own_settings=OWN.get(letter, NoSettings()),
            inputs=(inputs or {}) if letter == "D" else {},
        )
        train(job, folder / str(pipeline), state_root=folder / "state")


def prepare(folder: Path, family: str, kind: str) -> Vocabulary:
    base = write_base(folder / "whole/base", family, kind)
    vocabulary = prune(base, folder / "pruned/base")
    for name in ("whole", "pruned"):
        write_data(folder / name / "train.parquet", folder / name / "base")
    return vocabulary


def answers(model, split):
    with torch.no_grad():
        rows = [model(torch.from_numpy(ids[None])) for ids in split.input_ids]
    return np.concatenate([torch.stack(row.exit_logits, dim=1).numpy() for row in rows])


@pytest.mark.parametrize(("family", "kind"), EVERY)
def test_every_row_has_the_same_answers_before_and_after(family, kind, tmp_path):
    vocabulary = prepare(tmp_path, family, kind)
    trained(tmp_path, "V")
    whole, pruned = (load_tokenised(tmp_path / name / "train.parquet") for name in ("whole", "pruned"))
    for before, after in zip(whole.input_ids, pruned.input_ids, strict=True):
        assert before.tolist() == [vocabulary.kept[number] for number in after]
    before, after = (load_model(tmp_path / name).eval() for name in "OV")
    assert after.config.vocab_size == len(vocabulary.kept) < before.config.vocab_size
    assert after.config.shape == vocabulary.applied(before.config.shape)
    expected = answers(before, whole)
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(answers(after, pruned), expected, atol=1e-5, rtol=0)
    export(tmp_path / "V", tmp_path / "onnx")
    fp32, int8 = (
        Profiler.load(graph_path(tmp_path / "onnx", "profile", quantised=quantised), threads=1)
        for quantised in (False, True)
    )
    assert fp32.shape == int8.shape == after.config.shape
    for index, ids in enumerate(pruned.input_ids):
        inputs = ids[None], np.ones_like(ids)[None]
        np.testing.assert_allclose(fp32.run(*inputs).logits[0], expected[index], atol=1e-4, rtol=0)
        np.testing.assert_allclose(
            fp32.run(*pruned.padded(index)).logits[0], expected[index], atol=1e-4, rtol=0
        )
        np.testing.assert_allclose(
            int8.run(*pruned.padded(index)).logits, int8.run(*inputs).logits, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("family", DISTINCT)
def test_what_comes_after_it_starts_from_the_pruned_backbone(family, tmp_path):
    prepare(tmp_path, family, "byte-level BPE")
    trained(tmp_path, "VDPE VED VC")
    base = tmp_path / "pruned/base"
    found = architecture(str(tmp_path / "whole/base"))
    split = load_tokenised(tmp_path / "whole/train.parquet")
    original = found.shape(num_labels=2, sep_token_id=split.sep_token_id)

    def setup(letter):
        return Setup(
            model=ModelSection(backbone=str(base)),
            settings=OWN.get(letter, NoSettings()),
            vocabulary=read_vocabulary(base),
        )

    for name in ("V", "VD", "VE", "VDPE", "VED", "VC"):
        assert load_model(tmp_path / name).config.shape == shape_after(name, original, setup)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        assert len(tokenizer) == load_model(tmp_path / name).config.vocab_size


def test_a_students_own_backbone_is_pruned_alike(tmp_path):
    prepare(tmp_path, "roberta", "WordPiece")
    student = write_base(tmp_path / "whole/student", "roberta", "WordPiece", layers=2, seed=8)
    base, pruned = tmp_path / "whole/base", tmp_path / "pruned"
    outputs = {base: pruned / "base", student: pruned / "student"}
    vocabulary = prune_backbones(base, outputs, lambda: [TEXTS], VocabularySection())
    before, after = load_backbone(student), load_backbone(pruned / "student")
    words = before.get_input_embeddings().weight[list(vocabulary.kept)]
    assert torch.equal(after.get_input_embeddings().weight, words)
    trained(tmp_path, "VD", inputs={"student": pruned / "student"})
    assert load_model(tmp_path / "VD").config.num_hidden_layers == 2


def test_where_positions_start_stays(tmp_path):
    """RoBERTa's first token has the position after the number of its padding token."""
    vocabulary = prepare(tmp_path, "roberta", "Unigram")
    assert vocabulary.kept[:2] == (0, 1)
    before, after = (architecture(str(tmp_path / name / "base")) for name in ("whole", "pruned"))
    assert replace(before, vocab_size=after.vocab_size) == after


def test_texts_that_training_does_not_have_still_tokenise(tmp_path):
    for kind in NAMES:
        base = write_base(tmp_path / kind, "roberta", kind)
        vocabulary = prune(base, tmp_path / f"{kind} pruned")
        split = load_tokenised(write_data(tmp_path / "unseen.parquet", tmp_path / f"{kind} pruned", UNSEEN))
        assert max(map(max, split.input_ids)) < len(vocabulary.kept)
        assert len(split) == len(UNSEEN)


def test_tokens_of_other_texts_are_kept_where_they_are_named(tmp_path):
    base, extra = write_base(tmp_path / "base", "roberta", "BPE of characters"), tmp_path / "more.txt"
    extra.write_text("\n".join(UNSEEN[:20]), encoding="utf-8")
    least, more = prune(base, tmp_path / "a"), prune(base, tmp_path / "b", texts=[str(extra)])
    assert set(least.kept) < set(more.kept)
    whole, pruned = (load_tokenizer(folder) for folder in (base, tmp_path / "b"))
    assert [whole.tokenize(text) for text in UNSEEN[:20]] == [pruned.tokenize(text) for text in UNSEEN[:20]]
    assert len(prune(base, tmp_path / "c", size=len(least.kept) + 20).kept) >= len(least.kept) + 20
    extra.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(PipeOpsError, match=r"more\.txt: no text"):
        prune(base, tmp_path / "d", texts=[str(extra)])


def test_the_tokenizer_keeps_how_it_is_used(tmp_path):
    base = write_base(tmp_path / "base", "roberta", "Unigram")
    tokenizer = load_tokenizer(base)
    tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(base)
    seal(base)
    prune(base, tmp_path / "pruned")
    pruned = load_tokenizer(tmp_path / "pruned")
    assert (pruned.truncation_side, pruned.model_max_length) == ("left", 22)
    assert pruned.special_tokens_map == tokenizer.special_tokens_map


OWN_CLASSES = {
    "xlm-roberta": ("XLMRobertaTokenizer", "Unigram"),
    "camembert": ("CamembertTokenizer", "Unigram"),
    "roberta": ("RobertaTokenizer", "byte-level BPE"),
    "bert": ("BertTokenizer", "WordPiece"),
}
"""Families with the class of their tokenizers, which transformers makes of the pieces alone, and its kind."""


@pytest.mark.parametrize("family", OWN_CLASSES)
def test_a_familys_own_tokenizer_is_pruned(family, tmp_path):
    """Its special tokens are where the family has them: CamemBERT's are not the first ones."""
    name, kind = OWN_CLASSES[family]
    model = json.loads(TOKENIZERS[kind].to_str())["model"]
    if family == "camembert":
        front = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
        pieces = [[piece, 0.0] for piece in front] + model["vocab"][4:]
        model["vocab"] = [tuple(piece) for piece in [*pieces, ["<mask>", 0.0]]]
    elif kind == "Unigram":
        model["vocab"] = [tuple(piece) for piece in [*model["vocab"], ["<mask>", 0.0]]]
    merges = {"merges": [tuple(pair) for pair in model["merges"]]} if "merges" in model else {}
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    options = special if family == "bert" else {}
    tokenizer = getattr(transformers, name)(vocab=model["vocab"], **merges, **options)
    torch.manual_seed(0)
    config = tiny_encoder_config(family, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    save_backbone(AutoModel.from_config(config), tokenizer, tmp_path / "whole")
    vocabulary = prune(tmp_path / "whole", tmp_path / "pruned")
    whole, pruned = (load_tokenizer(tmp_path / folder) for folder in ("whole", "pruned"))
    assert type(whole).__name__ == name
    assert len(pruned) == len(vocabulary.kept) < len(whole)
    again = [[vocabulary.kept[token] for token in row] for row in pruned(TEXTS, TEXTS[::-1])["input_ids"]]
    assert again == whole(TEXTS, TEXTS[::-1])["input_ids"]
    assert pruned.special_tokens_map == whole.special_tokens_map
    ids = load_backbone(tmp_path / "pruned").config
    assert (ids.pad_token_id, ids.vocab_size) == (pruned.pad_token_id, len(pruned))
    if family != "bert":
        assert pruned.pad_token_id == whole.pad_token_id == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, r"vocabulary\.json: not found; V needs a backbone that `pipeops vocabulary` wrote"),
        ({"before": 9, "kept": [0, 1]}, r"vocabulary\.json: is of 9 tokens, but the parent knows"),
        ({"before": 9, "kept": [1, 0]}, r"vocabulary\.json: no vocabulary \(tokens that were not there\)"),
        ({"before": 2, "kept": [0, 2]}, r"vocabulary\.json: no vocabulary \(tokens that were not there\)"),
        ({"before": 2}, r"vocabulary\.json: no vocabulary \(lacks 'kept'\)"),
    ],
)
def test_a_backbone_that_v_did_not_make_is_refused(tmp_path, damage, message):
    prepare(tmp_path, "roberta", "WordLevel")
    trained(tmp_path, "O")
    path = tmp_path / "pruned/base" / VOCABULARY
    path.unlink()
    if damage:
        path.write_text(json.dumps(damage))
        seal(path.parent)
    with pytest.raises(PipeOpsError, match=message) as caught:
        trained(tmp_path, "V")
    assert "\n" not in str(caught.value)


def test_data_of_another_vocabulary_than_the_parents_are_refused(tmp_path):
    prepare(tmp_path, "roberta", "WordPiece")
    trained(tmp_path, "V")
    whole = tmp_path / "whole"
    job = Job(
        operator="E",
        parent=tmp_path / "V",
        backbone=whole / "base",
        data=whole / "train.parquet",
        seed=1,
        settings=SETTINGS,
        own_settings=NoSettings(),
    )
    with pytest.raises(
        PipeOpsError, match=r"train\.parquet: has tokens up to number \d+, but .*/V knows \d+ at most"
    ):
        train(job, tmp_path / "VE", state_root=tmp_path / "state")
