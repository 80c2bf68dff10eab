"""Classifiers that somebody fine-tuned become O: the same logits, in the order of the data's classes."""

import json

import pytest
import torch
from helpers import CLASSES, tiny_batch, write_classifier
from transformers import AutoModelForSequenceClassification, BertForMaskedLM

from pipeops.errors import PipeOpsError
from pipeops.models.backbones import fetch_backbone, load_backbone
from pipeops.models.classifiers import as_original, class_rows, fetch_classifier
from pipeops.models.encoders.post_norm import segment_ids
from pipeops.models.families.registry import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_theirs(tmp_path, family):
    source = write_classifier(tmp_path / "source", family)
    fetch_classifier(str(source), tmp_path / "classifier")
    labels = ["positive", "negative", "neutral"]
    ours = as_original(tmp_path / "classifier", sep_token_id=2, labels=labels)
    theirs = AutoModelForSequenceClassification.from_pretrained(source).eval()
    batch = tiny_batch(pad_token_id=theirs.config.pad_token_id)
    batch["input_ids"][0, 3] = 2  # two segments
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    segments = {"token_type_ids": segment_ids(**inputs, sep_token_id=2)} if ours.shape.segmented else {}
    with torch.no_grad():
        expected, found = theirs(**inputs, **segments).logits, ours(**inputs).logits
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected[:, [2, 0, 1]], atol=1e-5, rtol=0)
    assert list(ours.config.id2label.values()) == labels
    ours.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/config.json").read_text())
    assert saved["id2label"] == dict(zip("012", labels, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_starts_from_the_classifiers_encoder(tmp_path, family):
    source = write_classifier(tmp_path / "source", family)
    fetch_backbone(str(source), tmp_path / "base")
    theirs = AutoModelForSequenceClassification.from_pretrained(source)
    ours = load_backbone(tmp_path / "base").state_dict()
    for name, weight in theirs.base_model.state_dict().items():
        torch.testing.assert_close(ours[name], weight)


def test_classes_are_matched_by_name_whatever_the_case():
    assert class_rows(CLASSES, ["POSITIVE", "neutral", "negative"]) == [2, 1, 0]
    unnamed = {number: f"LABEL_{number}" for number in range(3)}
    assert class_rows(unnamed, ["0", "1", "2"]) == [0, 1, 2]
    assert class_rows(unnamed, ["LABEL_2", "LABEL_0", "LABEL_1"]) == [2, 0, 1]


@pytest.mark.parametrize("id2label", [{0: "a", 5: "b"}, {0: 0, 1: 1}, {1: "a", 2: "b"}, {0: "a", 1: None}])
def test_names_that_are_none_are_refused(id2label):
    with pytest.raises(
        PipeOpsError, match="id2label .* must name its classes by ids from 0 on, and does not: {"
    ):
        class_rows(id2label, ["a", "b"])


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (
            ["a", "b"],
            ["a", "b", "c"],
            "the classifier has no class 'c'; its classes are 'a', 'b'; rename",
        ),
        (["a", "b", "c"], ["a", "b"], "the data have no class 'c', which the classifier has"),
        (["LABEL_0", "LABEL_1"], ["1", "2"], "have no names .* the data's are no integers from 0 on"),
        (["LABEL_0", "LABEL_1"], ["no", "yes"], "have no names .* the data's are no integers from 0 on"),
        (["LABEL_0", "LABEL_1"], ["0", "1", "2"], "the classifier has no class '2'"),
        (["a", "A"], ["a", "b"], "differ in upper and lower case only"),
        (["a", "b"], ["a", "A"], "differ in upper and lower case only"),
        (["a", "b"], ["a", "x" * 99], "the classifier has no class 'x{17}...'"),
    ],
)
def test_classes_of_one_side_only_are_refused(theirs, ours, message):
    with pytest.raises(PipeOpsError, match=f"model.finetuned: .*{message}") as error:
        class_rows(dict(enumerate(theirs)), ours)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_class": BertForMaskedLM}, "its config.json names BertForMaskedLM, not BertForSequence"),
        ({"problem_type": "multi_label_classification"}, "it is made for multi_label_classification"),
        ({"names": {0: "score"}}, "it has one output, so it is a regression"),
    ],
)
def test_what_ours_cannot_be_is_refused(tmp_path, changes, message):
    source = write_classifier(tmp_path / "source", "bert", **changes)
    with pytest.raises(PipeOpsError, match=f"model.finetuned: '.*' cannot be O: {message}") as error:
        fetch_classifier(str(source), tmp_path / "out")
    assert len(str(error.value).splitlines()) == 1


def test_a_modernbert_that_pools_the_mean_is_refused(tmp_path):
    source = write_classifier(tmp_path / "source", "modernbert", classifier_pooling="mean")
    with pytest.raises(PipeOpsError, match="cannot be O: its classifier_pooling is 'mean', not 'cls'; set"):
        fetch_classifier(str(source), tmp_path / "out")


def test_a_classifier_without_its_weights_is_refused(tmp_path):
    source = write_classifier(tmp_path / "source", "roberta")
    AutoModelForSequenceClassification.from_pretrained(source).base_model.save_pretrained(tmp_path / "bare")
    (source / "model.safetensors").write_bytes((tmp_path / "bare/model.safetensors").read_bytes())
    with pytest.raises(PipeOpsError, match="lacks 4 weights of a classifier, classifier.dense.bias first"):
        fetch_classifier(str(source), tmp_path / "out")
