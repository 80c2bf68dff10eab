"""Slenderising: importance against an oracle, rewiring against masks, embeddings against their SVD."""

import pytest
import torch
from helpers import DISTINCT, tiny_batch, tiny_model

from pipeops.models.multi_exit import MultiExitForSequenceClassification
from pipeops.operators.importance import LayerMasks, masked, most_important
from pipeops.operators.slenderising import slender, weight_importance, with_embedding_rank


def all_exits(model, batch):
    return model(**batch).loss


def last_exit(model, batch):
    outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return torch.nn.functional.cross_entropy(outputs.logits, batch["labels"])


def random_scores(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return LayerMasks(
        heads=[torch.rand(heads, generator=generator) for heads in model.config.heads_per_layer],
        ffn=[torch.rand(ffn, generator=generator) for ffn in model.config.ffn_per_layer],
    )


def test_importance_is_weight_times_accumulated_gradient_by_backward():
    model = tiny_model(exits=True, layers=2)
    batches = [tiny_batch(seed=seed) for seed in (1, 2)]
    scores = weight_importance(model, batches, all_exits)
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for batch in batches:
        model.zero_grad()
        model(**batch).loss.backward()
        for name, parameter in model.named_parameters():
            sums[name] += parameter.grad.abs()
    parameters = dict(model.named_parameters())
    for layer in range(2):
        prefix = f"backbone.encoder.layer.{layer}"
        product = {
            part: parameters[f"{prefix}.{part}.weight"].abs() * sums[f"{prefix}.{part}.weight"]
            for part in ("attention.output.dense", "intermediate.dense", "output.dense")
        }
        for head in range(4):
            expected = product["attention.output.dense"][:, 4 * head : 4 * head + 4].sum()
            torch.testing.assert_close(scores.heads[layer][head], expected)
        for neuron in (0, 7, 23):
            expected = product["intermediate.dense"][neuron].sum() + product["output.dense"][:, neuron].sum()
            torch.testing.assert_close(scores.ffn[layer][neuron], expected)


def test_importance_leaves_no_gradient_and_the_mode_as_it_was():
    model = tiny_model(exits=True).train()
    weight_importance(model, [tiny_batch()], all_exits)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_units_that_only_shallow_exits_need_matter_only_if_their_loss_counts():
    model = tiny_model(exits=True, layers=2)
    with torch.no_grad():  # the last layer ignores what the first adds: its head reads nothing
        model.exits["2"].out_proj.weight.zero_()
    batch = tiny_batch()
    last = weight_importance(model, [batch], last_exit)
    every = weight_importance(model, [batch], all_exits)
    assert last.ffn[0].abs().max() == 0
    assert every.ffn[0].min() > 0


@pytest.mark.parametrize("family", DISTINCT)
def test_slenderising_is_rewiring(family):
    model = tiny_model(family, exits=True)
    scores = random_scores(model)
    smaller = slender(model, scores, heads=1, ffn=5, rank=0).eval()
    masks = LayerMasks(
        heads=[torch.zeros(4).index_fill(0, most_important(s, 1), 1) for s in scores.heads],
        ffn=[torch.zeros(24).index_fill(0, most_important(s, 5), 1) for s in scores.ffn],
    )
    batch = tiny_batch(pad_token_id=model.config.pad_token_id)
    with torch.no_grad(), masked(model, masks):
        expected = model(**batch).exit_logits
    with torch.no_grad():
        found = smaller(**batch).exit_logits
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert smaller.config.heads_per_layer == [1] * 4
    assert smaller.config.ffn_per_layer == [5] * 4


@pytest.mark.parametrize("family", DISTINCT)
def test_full_rank_changes_nothing(family):
    model = tiny_model(family, exits=True)
    factorised = with_embedding_rank(model, model.shape.layout.word_size(model.shape)).eval()
    batch = tiny_batch(pad_token_id=model.config.pad_token_id)
    with torch.no_grad():
        torch.testing.assert_close(factorised(**batch).logits, model(**batch).logits, atol=1e-5, rtol=0)


def test_a_lower_rank_is_the_best_approximation():
    model = tiny_model()
    table = model.backbone.embeddings.word_embeddings.weight
    words = with_embedding_rank(model, 5).backbone.embeddings.word_embeddings
    approximated = words(torch.arange(table.shape[0]))
    left_out = torch.linalg.svdvals(table)[5:]
    error = (table - approximated).pow(2).sum()
    torch.testing.assert_close(error, left_out.pow(2).sum(), rtol=1e-4, atol=1e-6)


def test_ranks_shrink_step_by_step_to_the_same_table_as_at_once():
    model = tiny_model()
    ids = torch.arange(60)
    in_steps = with_embedding_rank(with_embedding_rank(model, 10), 4).backbone.embeddings.word_embeddings(ids)
    at_once = with_embedding_rank(model, 4).backbone.embeddings.word_embeddings(ids)
    torch.testing.assert_close(in_steps, at_once, atol=1e-4, rtol=0)


def test_a_slender_checkpoint_reloads(tmp_path):
    model = tiny_model(exits=True)
    smaller = slender(model, random_scores(model), heads=2, ffn=7, rank=6).eval()
    smaller.save_pretrained(tmp_path)
    again = MultiExitForSequenceClassification.from_pretrained(tmp_path).eval()
    assert again.config.embedding_rank == 6
    batch = tiny_batch()
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, smaller(**batch).logits)
