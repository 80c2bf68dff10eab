import pytest
import torch
from helpers import DISTINCT, tiny_batch, tiny_model
from torch.nn import functional as F

from pipeops.operators.importance import (
    LayerMasks,
    importance,
    masked,
    most_important,
    ones_like_model,
    pruned,
)


def random_scores(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LayerMasks(
        heads=[torch.rand(n, generator=generator) for n in model.config.heads_per_layer],
        ffn=[torch.rand(n, generator=generator) for n in model.config.ffn_per_layer],
    )


def keep_mask(scores, fraction):
    mask = torch.zeros_like(scores)
    mask[most_important(scores, round(fraction * len(scores)))] = 1
    return mask


@pytest.mark.parametrize("family", DISTINCT)
@pytest.mark.parametrize("exits", [False, True])
@pytest.mark.parametrize(("keep_heads", "keep_ffn"), [(0.5, 0.5), (0.25, 1.0), (1.0, 0.1), (1.0, 1.0)])
@pytest.mark.parametrize("ffn_rank", [0, 5])
def test_masking_equals_rewiring(family, exits, keep_heads, keep_ffn, ffn_rank):
    model, batch = tiny_model(family, exits=exits, ffn_rank=ffn_rank), tiny_batch()
    scores = random_scores(model)
    masks = LayerMasks(
        heads=[keep_mask(s, keep_heads) for s in scores.heads],
        ffn=[keep_mask(s, keep_ffn) for s in scores.ffn],
    )
    with masked(model, masks):
        expected = model(**batch).exit_logits
    smaller = pruned(model, scores, keep_heads=keep_heads, keep_ffn=keep_ffn).eval()
    assert smaller.config.heads_per_layer == [round(keep_heads * 4)] * 4
    assert smaller.config.ffn_per_layer == [round(keep_ffn * 24)] * 4
    assert smaller.config.ffn_rank == ffn_rank
    for one, other in zip(expected, smaller(**batch).exit_logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_pruned_model_can_be_pruned_again_and_the_original_is_untouched():
    model, batch = tiny_model(), tiny_batch()
    before = model(**batch).logits
    once = pruned(model, random_scores(model), keep_heads=0.5, keep_ffn=0.5)
    twice = pruned(once, random_scores(once), keep_heads=0.5, keep_ffn=0.5).eval()
    assert twice.config.heads_per_layer == [1] * 4
    assert twice(**batch).logits.shape == before.shape
    assert torch.equal(model(**batch).logits, before)


def test_importance_is_the_absolute_gradient_by_finite_differences():
    model, batch = tiny_model(exits=True).double(), tiny_batch()
    scores = importance(model, [batch])
    step = 1e-5

    def loss(kind, layer, index, delta):
        masks = ones_like_model(model)
        getattr(masks, kind)[layer][index] += delta
        with masked(model, masks), torch.no_grad():
            return model(**batch).loss.item()

    for kind, layer, index in [("heads", 0, 1), ("heads", 3, 2), ("ffn", 1, 7), ("ffn", 2, 23)]:
        slope = (loss(kind, layer, index, step) - loss(kind, layer, index, -step)) / (2 * step)
        assert getattr(scores, kind)[layer][index].item() == pytest.approx(abs(slope), rel=1e-5, abs=1e-9)


def test_importance_adds_absolute_values_over_batches_without_dropout():
    model = tiny_model(hidden_dropout_prob=0.5).train()
    first, second = tiny_batch(seed=1), tiny_batch(seed=2)
    alone = [importance(model, [batch]) for batch in (first, second)]
    together = importance(model, [first, second])
    for layer in range(4):
        torch.testing.assert_close(together.ffn[layer], alone[0].ffn[layer] + alone[1].ffn[layer])
        torch.testing.assert_close(together.heads[layer], alone[0].heads[layer] + alone[1].heads[layer])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_head_without_effect_has_no_importance():
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        model.layers[1].attention.output.dense.weight[:, 4:8] = 0  # head 2 of layer 2
    scores = importance(model, [batch])
    assert scores.heads[1][1].item() == 0
    assert (scores.heads[0] > 0).all()


def test_most_important_keeps_order_and_the_first_of_equals():
    assert most_important(torch.tensor([1.0, 5.0, 3.0, 5.0]), 2).tolist() == [1, 3]
    assert most_important(torch.tensor([2.0, 2.0, 2.0]), 2).tolist() == [0, 1]


def test_hooks_are_gone_after_an_error():
    model, batch = tiny_model(), tiny_batch()
    before = model(**batch).logits
    masks = LayerMasks(heads=[torch.zeros(4)] * 4, ffn=[torch.zeros(24)] * 4)
    with pytest.raises(RuntimeError), masked(model, masks):
        raise RuntimeError
    assert torch.equal(model(**batch).logits, before)
    assert not F.cosine_similarity(before, model(**batch).logits).isnan().any()


def test_nothing_left_is_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match="keep_heads: 0.1 of 4 rounds to none"):
        pruned(model, random_scores(model), keep_heads=0.1, keep_ffn=0.5)
