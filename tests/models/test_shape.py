import json

import pytest
import torch
from helpers import DISTINCT, tiny_batch, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape

CHANGES = [
    {},
    {"heads_per_layer": [1, 2, 4, 3], "ffn_per_layer": [8, 24, 3, 5]},
    {"heads_per_layer": [1] * 4, "embedding_rank": 5},
    {"pooling": "mean"},
    {"ffn_per_layer": [8, 24, 3, 5], "ffn_rank": 6},
]


@pytest.mark.parametrize("family", DISTINCT)
@pytest.mark.parametrize("changes", CHANGES)
def test_flops_equal_torchs_own_count(family, changes):
    model = tiny_model(family, exits=True)
    model = type(model)(model.config.with_shape(attn_implementation="eager", **changes)).eval()
    ids = tiny_batch(rows=1, length=6)["input_ids"]
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(ids)
    assert model.config.shape.flops(6)[-1] == counter.get_total_flops()


@pytest.mark.parametrize("family", DISTINCT)
@pytest.mark.parametrize("exits", [True, False])
@pytest.mark.parametrize("changes", CHANGES)
def test_parameters_equal_torchs_own_count(family, exits, changes):
    model = tiny_model(family, exits=exits)
    model = type(model)(model.config.with_shape(**changes))
    assert model.config.shape.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("changes", CHANGES)
def test_parameters_of_an_exit_are_those_of_a_model_that_ends_there(changes):
    model = tiny_model(exits=True)
    shape = type(model)(model.config.with_shape(**changes)).config.shape
    assert len(shape.exit_parameters) == 4
    for layer, parameters in enumerate(shape.exit_parameters, start=1):
        shorter = model.config.with_shape(
            heads_per_layer=list(shape.heads_per_layer[:layer]),
            ffn_per_layer=list(shape.ffn_per_layer[:layer]),
            embedding_rank=shape.embedding_rank,
            ffn_rank=shape.ffn_rank,
            exit_layers=[layer],
        )
        assert parameters == sum(parameter.numel() for parameter in type(model)(shorter).parameters())


def test_flops_by_hand():
    shape = tiny_model(layers=2, exits=True).config.shape
    length, hidden, ffn, labels = 10, 16, 24, 2
    layer = 2 * length * (4 * hidden * hidden + 2 * hidden * ffn) + 2 * 2 * length * length * hidden
    head = 2 * (hidden * hidden + hidden * labels)
    assert shape.flops(length) == (layer + head, 2 * (layer + head))


def test_lengths_and_offsets():
    assert tiny_model("roberta").config.shape.max_length == 22  # two rows of the position table are reserved
    assert tiny_model("bert").config.shape.max_length == 24
    assert not tiny_model().config.shape.has_exits
    assert tiny_model(exits=True).config.shape.has_exits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a PipeOps checkpoint"),
        ('{"model_type": "bert"}', "not a PipeOps checkpoint"),
        ('{"family": "gpt2"}', "family: 'gpt2' is not one of bert, roberta"),
        ('{"family": "bert", "pooling": "max"}', "pooling: Input should be 'first' or 'mean' .got 'max'"),
    ],
)
def test_a_foreign_checkpoint_is_named(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(PipeOpsError, match=message):
        ModelShape.from_checkpoint(tmp_path)
    with pytest.raises(PipeOpsError, match="not found"):
        ModelShape.from_checkpoint(tmp_path / "absent")


def test_from_checkpoint_reads_what_was_saved(tmp_path):
    model = tiny_model("bert", exits=True)
    model.save_pretrained(tmp_path)
    assert ModelShape.from_checkpoint(tmp_path) == model.config.shape
    assert json.loads((tmp_path / "config.json").read_text())["num_labels"] == 2


def test_a_checkpoint_from_before_pooling_was_a_choice_reads_as_first(tmp_path):
    model = tiny_model("bert", exits=True)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["pooling"], config["exits_standardised"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ModelShape.from_checkpoint(tmp_path).pooling == "first"
    reloaded = type(model).from_pretrained(tmp_path).eval()
    batch = tiny_batch()
    assert torch.equal(reloaded(**batch).logits, model(**batch).logits)
