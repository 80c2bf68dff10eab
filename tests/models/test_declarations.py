"""Families: what a declaration says of a pretrained encoder's configuration, and what is refused."""

import json
import re
from dataclasses import replace

import pytest
from helpers import ROOT, tiny_encoder_config, write_backbone

from pipeops.errors import PipeOpsError
from pipeops.models.architectures import KNOWN, architecture, architecture_of
from pipeops.models.backbones import fetch_backbone, load_backbone
from pipeops.models.families.declaration import EVERY
from pipeops.models.families.pre_norm import PreNorm
from pipeops.models.families.registry import ACTIVATIONS, FAMILIES, supported_family
from pipeops.models.multi_exit import from_pretrained_backbone
from pipeops.models.shape import ModelShape, alternate_layers, encoder_tensors
from pipeops.onnx.stages import ACTIVATIONS as EXPORTED

MODERNBERT_BASE = {
    "model_type": "modernbert",
    "num_hidden_layers": 22,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "vocab_size": 50368,
    "max_position_embeddings": 8192,
    "local_attention": 128,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "pad_token_id": 50283,
}
"""As its hub has it."""


def test_no_module_asks_which_family_it_is():
    asking = re.compile(r"family\s*(==|!=|in\b|not in\b)|(==|!=)\s*\w*\.?family\b|match .*family")
    source = ROOT / "src" / "pipeops"
    found = [
        f"{path.relative_to(source)}: {line.strip()}"
        for path in source.rglob("*.py")
        if path.parent.name != "families"
        for line in path.read_text().splitlines()
        if asking.search(line)
    ]
    # A shape's and a student's family are compared with those that are known.
    assert all("not in FAMILIES" in line or "family != expected" in line for line in found), found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tensors_are_those_of_transformers_under_our_names(family, tmp_path):
    backbone = load_backbone(write_backbone(tmp_path, family=family))
    declared, found = FAMILIES[family], architecture(str(tmp_path))
    assert found == architecture_of(backbone.config.to_dict(), family)
    expected = encoder_tensors(found.shape(num_labels=2))
    theirs = {
        f"backbone.{declared.our_name(name).replace(EVERY, str(index))}": tuple(weight.shape)
        for name, weight in backbone.state_dict().items()
        for index in range(4)
        if not name.startswith("pooler.")
    }
    assert theirs == {
        name: dims for name, dims in expected.items() if name.removeprefix("backbone.") not in declared.zeros
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_an_alternate_student_has_every_second_layer(family, tmp_path):
    backbone = load_backbone(write_backbone(tmp_path, family=family, layers=5))
    model = from_pretrained_backbone(backbone, sep_token_id=2, labels=["no", "yes"], layers=[2, 4])
    declared, theirs = FAMILIES[family], backbone.state_dict()
    assert model.shape == architecture(str(tmp_path)).shape(num_labels=2, sep_token_id=2).with_layers([2, 4])
    ours, layers = model.backbone.state_dict(), model.shape.layout.layer
    for name, weight in theirs.items():
        for index in (1, 3):
            theirs_in_ours = declared.our_name(name).replace(EVERY, str(index))
            taken = theirs_in_ours.replace(f"{layers}.{index}.", f"{layers}.{index // 2}.")
            if taken != theirs_in_ours:
                assert (ours[taken] == weight).all()


def test_modernbert_alternates_global_and_local_attention_and_so_do_its_students():
    shape = architecture_of(MODERNBERT_BASE, "ModernBERT").shape(num_labels=2)
    layout = shape.layout
    assert isinstance(layout, PreNorm)
    assert layout.attention == (("global", "local", "local") * 8)[:22]
    assert (layout.window, layout.global_theta, layout.local_theta) == (64, 160000, 10000)
    assert (shape.max_length, shape.pad_token_id, layout.first_normed) == (8192, 50283, False)
    student = shape.with_layers(alternate_layers(22)).layout
    assert student.attention == (("local", "global", "local") * 4)[:11]
    assert student.first_normed
    assert shape.cut(5).layout.attention == ("global", "local", "local", "global", "local")


def test_a_layout_survives_the_configuration():
    for family in FAMILIES:
        encoder = tiny_encoder_config(family)
        shape = architecture_of(encoder.to_dict(), family).shape(num_labels=2).with_layers([2, 3])
        assert ModelShape.from_config(json.loads(json.dumps(shape.to_config()))) == shape


def test_known_architectures_are_consistent():
    for name, known in KNOWN.items():
        shape = known.shape(num_labels=2)
        assert shape.max_length == known.max_length, name


def refused(config, *wanted):
    with pytest.raises(PipeOpsError) as caught:
        supported_family(config, "theirs")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for text in wanted:
        assert text in message


def test_other_families_are_refused_and_the_nearest_named_first():
    refused({"model_type": "modernbert-decoder"}, "is a modernbert-decoder model", "families modernbert, ")
    refused({"model_type": "xlm"}, "families xlm-roberta, ", *FAMILIES)
    refused({}, "is a None model")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attention_bias": True}, "attention_bias is true"),
        ({"norm_bias": True}, "norm_bias is true"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types has 'chunked_attention'"),
        ({"layer_types": ["full_attention"] * 21}, "layer_types has 21 layers, num_hidden_layers is 22"),
        ({"global_attn_every_n_layers": 0}, "global_attn_every_n_layers is 0, no number of layers"),
        ({"global_attn_every_n_layers": 2.5}, "global_attn_every_n_layers is 2.5, no number of layers"),
        ({"global_rope_theta": -1}, "rope_theta of full_attention is -1, no positive number"),
        ({"local_rope_theta": None}, "rope_theta of sliding_attention is None, no positive number"),
        ({"local_rope_theta": float("inf")}, "rope_theta of sliding_attention is inf, no positive number"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is set"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters has 'rope_type', where full_attention"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "rope_type of full_attention is 'yarn'",
        ),
    ],
)
def test_attention_that_is_not_handled_is_refused(changes, reason):
    refused(MODERNBERT_BASE | changes, "'theirs' is a modernbert model that is not supported", reason)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_no_encoder_or_cannot_be_exported_is_refused_whatever_the_family(family):
    key, config = FAMILIES[family].keys.activation, tiny_encoder_config(family).to_dict()
    assert set(ACTIVATIONS) == set(EXPORTED)
    for activation in ACTIVATIONS:
        assert supported_family(config | {key: activation}, "theirs").name == family
    refused(config | {key: "gelu_new"}, f"{key} is 'gelu_new', which cannot be exported; gelu or relu can")
    refused(config | {key: ["gelu"]}, f"{key} is ['gelu'], which cannot be exported")
    refused(
        config | {"is_decoder": True}, "'theirs' is a ", "is_decoder is true, so it is no encoder; choose"
    )
    refused(config | {"add_cross_attention": True}, "add_cross_attention is true, so it is no encoder")


def test_relative_positions_of_bert_are_refused():
    config = {"model_type": "bert", "position_embedding_type": "relative_key"}
    refused(config, "position_embedding_type is 'relative_key', not 'absolute'")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"relative_attention_num_buckets": 16}, "relative_attention_num_buckets is 16, not 32; choose"),
        ({"pad_token_id": 0}, "pad_token_id is 0, not 1; choose"),
        ({"pad_token_id": None}, "pad_token_id is None, not 1; choose"),
    ],
)
def test_settings_that_mpnet_has_in_its_code_are_refused_if_they_differ(changes, reason):
    refused(
        tiny_encoder_config("mpnet").to_dict() | changes, "is a mpnet model that is not supported", reason
    )


def test_a_student_of_another_family_is_refused(tmp_path):
    base = write_backbone(tmp_path / "base", family="bert")
    student = write_backbone(tmp_path / "student", family="electra")
    with pytest.raises(PipeOpsError, match="is a electra model, the backbone a bert model; choose a student"):
        fetch_backbone(str(student), tmp_path / "out", teacher=base)


def test_another_familys_layout_is_no_shape():
    shape = architecture_of(MODERNBERT_BASE, "ModernBERT").shape(num_labels=2)
    with pytest.raises(ValueError, match="layout: PreNorm is not that of bert"):
        ModelShape(**{name: getattr(shape, name) for name in shape.__dataclass_fields__} | {"family": "bert"})
    relative = architecture_of(tiny_encoder_config("mpnet").to_dict(), "MPNet").shape(num_labels=2)
    with pytest.raises(ValueError, match="layout: RelativePostNorm is not that of roberta"):
        replace(relative, family="roberta")
    with pytest.raises(ValueError, match="family: 'gpt2' is not one of bert"):
        ModelShape.from_config(shape.to_config() | {"family": "gpt2"})
