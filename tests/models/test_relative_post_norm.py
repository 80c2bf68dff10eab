"""MPNet's biases for how far apart two tokens are: as transformers has them, and a table for each layer."""

import pytest
import torch
from helpers import tiny_batch, tiny_encoder_config, tiny_model
from transformers import MPNetModel
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from pipeops.models.encoders.relative_post_norm import every_pair
from pipeops.models.families.relative_post_norm import BUCKETS, bucket, buckets
from pipeops.models.multi_exit import from_pretrained_backbone
from pipeops.operators.importance import rewired

LONG = 300


def test_buckets_by_hand():
    before = {
        0: 0,
        -1: 1,
        -7: 7,
        -8: 8,
        -11: 8,
        -12: 9,
        -15: 9,
        -16: 10,
        -63: 13,
        -64: 14,
        -91: 15,
        -9999: 15,
    }
    assert {apart: bucket(apart) for apart in before} == before
    assert all(bucket(-apart) == 16 + row for apart, row in before.items() if apart)
    assert buckets(3) == (2, 1, 0, 17, 18)


def test_buckets_are_those_of_transformers():
    expected = MPNetEncoder.relative_position_bucket(torch.arange(1 - 2000, 2000), num_buckets=BUCKETS)
    assert list(buckets(2000)) == expected.tolist()


def test_every_pair_has_the_bias_of_its_distance():
    rows = torch.randn(7, 2)
    found = every_pair(rows)
    assert found.shape == (1, 2, 4, 4)
    for head, token, other in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(4)):
        assert found[0, head, token, other] == rows[other - token + 3, head]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("length", [1, LONG])
@pytest.mark.parametrize("padding", [0, 50])
def test_states_of_long_inputs_are_those_of_transformers(attention, length, padding):
    torch.manual_seed(0)
    config = tiny_encoder_config("mpnet", max_position_embeddings=400, initializer_range=0.3)
    theirs = MPNetModel(config).eval()
    ours = from_pretrained_backbone(theirs, sep_token_id=2, labels=["no", "yes"]).eval()
    ours.backbone.config._attn_implementation = attention
    ids = torch.randint(5, 60, (1, length + padding))
    ids[:, length:] = 1
    mask = (ids != 1).long()
    with torch.no_grad():
        expected = theirs(ids, mask, output_hidden_states=True).hidden_states
        found = ours(ids, mask).hidden_states
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[:, :length], other[:, :length], atol=1e-5, rtol=0)


def table(model, layer):
    return model.layers[layer].attention.self.relative_bias.weight


def test_each_layer_has_and_trains_a_table_of_its_own():
    theirs = MPNetModel(tiny_encoder_config("mpnet", initializer_range=0.3))
    model = from_pretrained_backbone(theirs, sep_token_id=2, labels=["no", "yes"], layers=[2, 4])
    shared = theirs.encoder.relative_attention_bias.weight.clone()
    for layer in range(2):
        torch.testing.assert_close(table(model, layer), shared)
    model(**tiny_batch()).loss.backward()
    with torch.no_grad():
        for layer in range(2):
            assert table(model, layer).grad.abs().max() > 0
            table(model, layer).sub_(table(model, layer).grad)
    assert not torch.equal(table(model, 0), table(model, 1))
    torch.testing.assert_close(shared, theirs.encoder.relative_attention_bias.weight)


def test_a_dropped_head_takes_its_column_of_the_table_with_it():
    model = tiny_model("mpnet", layers=2)
    heads = [torch.tensor([1, 3]), torch.tensor([0])]
    smaller = rewired(model, heads=heads, neurons=[torch.arange(24)] * 2)
    for layer, kept in enumerate(heads):
        assert torch.equal(table(smaller, layer), table(model, layer)[:, kept])
