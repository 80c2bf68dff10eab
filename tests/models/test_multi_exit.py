import json
import subprocess
import sys

import pytest
import torch
from helpers import DISTINCT, tiny_batch, tiny_model, write_backbone
from torch import nn
from torch.nn import functional as F

from pipeops.models.backbones import load_backbone
from pipeops.models.encoders.factorised import FactorisedLinear
from pipeops.models.encoders.post_norm import segment_ids
from pipeops.models.families.registry import FAMILIES
from pipeops.models.multi_exit import (
    ClassificationHead,
    fold_standardisation,
    from_pretrained_backbone,
    pooled_states,
    standardise_exits,
    with_all_exits,
)
from pipeops.models.shape import ModelShape
from pipeops.models.standardising import Standardisation

POOLINGS = ["first", "mean"]
PRUNED = {"heads_per_layer": [1, 4, 2, 3], "ffn_per_layer": [5, 24, 1, 10]}


@pytest.mark.parametrize("family", DISTINCT)
@pytest.mark.parametrize("exits", [False, True])
@pytest.mark.parametrize("changes", [{}, PRUNED, {"ffn_rank": 6}, PRUNED | {"ffn_rank": 6}])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_save_and_reload(family, exits, changes, pooling, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = tiny_model(family, pooling=pooling)
    if changes:
        model = type(model)(model.config.with_shape(**changes)).eval()
    if exits:
        model = with_all_exits(model).eval()
    model.save_pretrained(tmp_path)
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = tiny_batch()
    assert reloaded.config.shape == model.config.shape
    for one, other in zip(model(**batch).exit_logits, reloaded(**batch).exit_logits, strict=True):
        assert torch.equal(one, other)
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_of_transformers_gives_the_models_answer(family, tmp_path):
    from deployed import word_tokenizer
    from transformers import AutoTokenizer, pipeline

    model = tiny_model(family, exits=True)
    model.save_pretrained(tmp_path)
    tokenizer = word_tokenizer(family)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    inputs = [{"text": "w1 w2", "text_pair": "w3"}, {"text": "w4 w5 w6", "text_pair": "w7 w8"}]
    answers = pipeline("text-classification", model=str(tmp_path))(inputs)
    for given, answer in zip(inputs, answers, strict=True):
        tokens = AutoTokenizer.from_pretrained(tmp_path)(*given.values(), return_tensors="pt")
        assert tokens["input_ids"].shape[1] == len(tokenizer.encode(*given.values()))
        with torch.no_grad():
            logits = model(tokens["input_ids"], tokens["attention_mask"]).logits[0]
        assert answer["label"] == model.config.id2label[int(logits.argmax())]
        assert answer["score"] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-6)


@pytest.mark.parametrize(
    "first", ["transformers", *(f"transformers.models.{n}.modeling_{n}" for n in ("bert", "modernbert"))]
)
def test_import_of_the_package_is_light_and_still_registers_the_model(tmp_path, first):
    tiny_model(exits=True).save_pretrained(tmp_path)
    script = (
        "import sys, pipeops; assert 'torch' not in sys.modules and 'transformers' not in sys.modules;"
        f"import {first};"
        "from transformers import AutoModelForSequenceClassification as A;"
        f"print(type(A.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "MultiExitForSequenceClassification"


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_the_backbones(family, tmp_path):
    backbone = load_backbone(write_backbone(tmp_path, family=family)).eval()
    model = from_pretrained_backbone(backbone, sep_token_id=2, labels=["no", "yes"]).eval()
    batch = tiny_batch(pad_token_id=backbone.config.pad_token_id)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    segments = {"token_type_ids": segment_ids(**inputs, sep_token_id=2)} if model.shape.segmented else {}
    reference = backbone(**inputs, **segments, output_hidden_states=True)
    assert torch.equal(reference.hidden_states[-1], reference.last_hidden_state)
    read = getattr(backbone, "final_norm", nn.Identity())
    embedded, *between, last = reference.hidden_states
    ours = model(**batch).hidden_states
    assert len(ours) == 5
    kept = inputs["attention_mask"].bool()
    for one, other in zip(ours, [embedded, *map(read, between), last], strict=True):
        torch.testing.assert_close(one[kept], other[kept], atol=1e-5, rtol=0)


def test_bert_classifier_starts_from_the_pretrained_pooler(tmp_path):
    backbone = load_backbone(write_backbone(tmp_path, family="bert"))
    model = from_pretrained_backbone(backbone, sep_token_id=2, labels=["no", "yes"])
    assert torch.equal(model.exits["4"].dense.weight, backbone.pooler.dense.weight)


def test_alternate_layers_are_the_pretrained_ones(tmp_path):
    backbone = load_backbone(write_backbone(tmp_path))
    student = from_pretrained_backbone(backbone, sep_token_id=2, labels=["no", "yes"], layers=[2, 4])
    for ours, theirs in zip(student.layers, [1, 3], strict=True):
        expected = backbone.encoder.layer[theirs].state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())
    assert student.config.exit_layers == [2]


def test_loss_is_the_sum_of_the_exits_cross_entropies():
    model, batch = tiny_model(exits=True), tiny_batch()
    output = model(**batch)
    expected = sum(F.cross_entropy(logits, batch["labels"]).item() for logits in output.exit_logits)
    assert output.loss.item() == pytest.approx(expected)
    assert torch.equal(output.logits, output.exit_logits[-1])


def test_new_exits_leave_the_last_as_it_was():
    model, batch = tiny_model(), tiny_batch()
    extended = with_all_exits(model).eval()
    assert extended.config.exit_layers == [1, 2, 3, 4]
    assert torch.equal(extended(**batch).logits, model(**batch).logits)


def test_a_checkpoint_from_before_the_ffn_could_be_factorised_is_read(tmp_path):
    model, batch = tiny_model(), tiny_batch()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["ffn_rank"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    reloaded = type(model).from_pretrained(tmp_path).eval()
    assert reloaded.config.ffn_rank == ModelShape.from_checkpoint(tmp_path).ffn_rank == 0
    assert torch.equal(reloaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("rank", [1, 6, 16])
def test_a_factorised_linear_map_is_the_product_of_its_factors(rank):
    torch.manual_seed(0)
    linear, x = FactorisedLinear(16, 24, rank=rank), torch.randn(3, 5, 16)
    expected = F.linear(x, linear.second.weight @ linear.first.weight, linear.second.bias)
    torch.testing.assert_close(linear(x), expected)


@pytest.mark.parametrize("family", DISTINCT)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_no_logits(family, pooling):
    model = tiny_model(family, exits=True, pooling=pooling)
    pad = model.config.pad_token_id
    batch = tiny_batch(rows=1, length=7, pad_token_id=pad)
    ids = F.pad(batch["input_ids"], (0, 9), value=pad)
    mask = F.pad(batch["attention_mask"], (0, 9))
    short = model(batch["input_ids"], batch["attention_mask"]).exit_logits
    for one, other in zip(short, model(ids, mask).exit_logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_what_is_pooled_by_hand():
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]], [[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pooled_states(states, mask, "first").tolist() == [[1, 2], [1, 0]]
    assert pooled_states(states, mask, "mean").tolist() == [[2, 4], [3, 1]]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", DISTINCT)
def test_folded_standardisation_answers_the_same(family, pooling, tmp_path):
    model = with_all_exits(tiny_model(family, pooling=pooling))
    plain = model.state_dict().keys()
    standardise_exits(model, [1, 2, 3])
    assert model.state_dict().keys() > plain
    model.train()
    for seed in range(5):
        model(**tiny_batch(seed=seed))
    batch = tiny_batch(seed=9)
    before = model.eval()(**batch).exit_logits
    fold_standardisation(model)
    assert model.state_dict().keys() == plain
    for one, other in zip(before, model(**batch).exit_logits, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path)
    reloaded = type(model).from_pretrained(tmp_path).eval()
    assert reloaded.config.exits_standardised
    for one, other in zip(model(**batch).exit_logits, reloaded(**batch).exit_logits, strict=True):
        assert torch.equal(one, other)


def test_standardising_draws_no_random_number():
    model = tiny_model(exits=True)
    state = torch.get_rng_state()
    standardise_exits(model, [1, 2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("standardise", "learns"), [(False, False), (True, True)])
def test_an_exit_that_sees_almost_a_constant_learns_if_its_input_is_standardised(standardise, learns):
    """States that differ by thousandths of their size, as a fine-tuned model's first token does."""
    torch.manual_seed(0)
    config = tiny_model().config.with_shape(hidden_dropout_prob=0.0, initializer_range=0.02)
    head = ClassificationHead(config)
    head.apply(lambda module: isinstance(module, nn.Linear) and nn.init.normal_(module.weight, std=0.02))
    if standardise:
        head.standardisation = Standardisation(16)
    labels = torch.arange(64) % 2
    states = torch.randn(16) + 1e-3 * torch.randn(64, 16)
    states[:, 3] += 2e-3 * labels
    mask, optimiser = torch.ones(64, 1), torch.optim.Adam(head.parameters(), lr=1e-3)
    head.train()
    for _ in range(150):
        optimiser.zero_grad()
        F.cross_entropy(head(states[:, None], mask), labels).backward()
        optimiser.step()
    accuracy = (head.eval()(states[:, None], mask).argmax(dim=-1) == labels).float().mean().item()
    assert (accuracy > 0.8) == learns


def test_segment_ids_by_hand():
    #                    [CLS] a [SEP] b  c [SEP] pad
    ids = torch.tensor([[1, 7, 2, 8, 9, 2, 0], [1, 7, 8, 9, 2, 0, 0]])
    mask = (ids != 0).long()
    expected = [[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]]
    assert segment_ids(ids, mask, sep_token_id=2).tolist() == expected


def test_segment_ids_are_a_real_tokenizers(minilm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    batch = tokenizer(["a film", "one"], ["is it any good?", "two three"], padding=True, return_tensors="pt")
    ours = segment_ids(batch["input_ids"], batch["attention_mask"], sep_token_id=tokenizer.sep_token_id)
    assert torch.equal(ours, batch["token_type_ids"])


def test_added_exits_lie_where_the_model_does(monkeypatch):
    model, moved = tiny_model(), []
    monkeypatch.setattr(type(model), "to", lambda self, device: moved.append(device) or self)
    with_all_exits(model)
    assert moved == [model.device]
