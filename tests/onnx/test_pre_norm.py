"""ModernBERT's layers as ONNX: rotary frequencies, and both forms of local attention, against PyTorch."""

import numpy as np
import pytest
import torch
from export_models import SHAPES, modernbert
from onnx import numpy_helper

from pipeops.models.families.pre_norm import BLOCK_SPAN, PreNorm
from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.onnx.export import export
from pipeops.onnx.runtime import Profiler
from pipeops.onnx.stages import emit_stages

WINDOW = 3


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A model in PyTorch, and as it is exported."""
    folder = tmp_path_factory.mktemp("model")
    layout = PreNorm(attention=("local", "global", "local"), window=WINDOW, first_normed=True)
    shape = modernbert(layout=layout, max_position_embeddings=64)
    torch.manual_seed(0)
    config = MultiExitConfig.from_shape(shape).with_shape(initializer_range=0.5)
    model = MultiExitForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    export(folder, folder)
    return model, Profiler.load(folder / "profile.onnx", threads=1)


@pytest.mark.parametrize("length", [1, 2, *range(BLOCK_SPAN * WINDOW - 1, BLOCK_SPAN * WINDOW + 6), 40, 64])
@pytest.mark.parametrize("padding", [0, 1, 5])
def test_local_attention_masked_or_in_blocks_is_that_of_pytorch(both, length, padding):
    model, profiler = both
    ids = np.random.default_rng(length).integers(3, 50, (2, length + padding))
    mask = np.ones_like(ids)
    mask[0, length:] = 0
    ids, mask = ids[:, :64], mask[:, :64]
    with torch.no_grad():
        expected = torch.stack(model(torch.from_numpy(ids), torch.from_numpy(mask)).exit_logits, dim=1)
    np.testing.assert_allclose(profiler.run(ids, mask).logits, expected.numpy(), atol=1e-4, rtol=0)


def test_the_window_matters(both):
    """A token just outside changes nothing in a local layer, one just inside does."""
    model, _ = both
    local = type(model)(model.config.reshaped(model.shape.cut(1))).eval()
    local.load_state_dict(model.state_dict(), strict=False)
    ids = torch.full((3, 20), 7)
    ids[1, WINDOW + 1], ids[2, WINDOW] = 8, 8
    plain, outside, inside = local(ids).logits
    torch.testing.assert_close(plain, outside, atol=1e-6, rtol=0)
    assert not torch.allclose(plain, inside, atol=1e-4)


def test_rotary_frequencies_are_pytorchs_to_the_bit():
    shape = SHAPES["modernbert"]
    model = MultiExitForSequenceClassification(MultiExitConfig.from_shape(shape))
    stage = emit_stages(shape, lambda name: model.state_dict()[name].numpy())[0]
    found = {weight.name: numpy_helper.to_array(weight) for weight in stage.graph.initializer}
    for attention, kind in (("global", "full_attention"), ("local", "sliding_attention")):
        expected = getattr(model.backbone.rotary_emb, f"{kind}_inv_freq").numpy()
        np.testing.assert_array_equal(found[f"rotary.{attention}.frequencies"][0], expected)
