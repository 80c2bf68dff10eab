import json
import subprocess
import sys

import pytest
import torch
from helpers import unsealed, write_backbone

from pipeops.errors import PipeOpsError
from pipeops.models.architectures import TINY_ARCHITECTURE, architecture
from pipeops.models.backbones import fetch_backbone, load_backbone, load_tokenizer
from pipeops.models.families.registry import supported_family
from pipeops.settings import PretrainingSection
from pipeops.training.pretraining import pretrain_tiny


def test_a_folder_is_fetched_in_float32(tmp_path):
    source = unsealed(write_backbone(tmp_path / "source", family="bert"))
    load_backbone(source).half().save_pretrained(source)
    fetch_backbone(str(source), tmp_path / "base")
    fetched = load_backbone(tmp_path / "base")
    assert {parameter.dtype for parameter in fetched.parameters()} == {torch.float32}
    assert fetched.pooler is not None
    assert load_tokenizer(tmp_path / "base").get_vocab() == load_tokenizer(source).get_vocab()


def refused(message, source, output, **options):
    with pytest.raises(PipeOpsError, match=message) as error:
        fetch_backbone(str(source), output, **options)
    assert "\n" not in str(error.value)
    assert not (output / "model.safetensors").exists()


def test_what_is_no_backbone_is_refused(tmp_path):
    refused("backbone 'owner/model' cannot be read", "owner/model", tmp_path / "out")
    other = tmp_path / "gpt2"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "gpt2"}')
    refused("is a gpt2 model; PipeOps supports the families .*bert.*roberta", other, tmp_path / "out")
    cut = write_backbone(tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    refused("model.safetensors: not readable", cut, tmp_path / "out")
    weights.unlink()
    refused("no safetensors weights can be loaded", cut, tmp_path / "out")


def test_an_incomplete_backbone_is_refused(tmp_path):
    deeper = unsealed(write_backbone(tmp_path / "deeper"))
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))
    message = f"{deeper}/model.safetensors: lacks 32 tensors of its config.json, encoder.layer.4"
    refused(message, deeper, tmp_path / "out")
    command = [sys.executable, "-m", "pipeops", "backbone", deeper, "--output", tmp_path / "out"]
    (said,) = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    assert said.startswith(f"error: {message}")  # and transformers says nothing
    (deeper / "config.json").write_text(json.dumps(config | {"intermediate_size": 12}))
    refused("no safetensors weights can be loaded", deeper, tmp_path / "out")
    bare = unsealed(write_backbone(tmp_path / "bare"))
    for path in bare.glob("tokenizer*"):
        path.unlink()
    refused("its tokenizer has .* add the tokenizer's files", bare, tmp_path / "out")
    with pytest.raises(PipeOpsError, match=r"tokenizer.json: not found"):
        load_tokenizer(bare)


def test_a_student_must_fit_its_teacher(tmp_path):
    base = write_backbone(tmp_path / "base")
    fetch_backbone(str(write_backbone(tmp_path / "good", layers=2)), tmp_path / "student", teacher=base)
    assert load_backbone(tmp_path / "student").config.num_hidden_layers == 2
    narrow = write_backbone(tmp_path / "narrow", hidden_size=8)
    refused("hidden size 8, the backbone 16", narrow, tmp_path / "out", teacher=base)
    other = unsealed(write_backbone(tmp_path / "other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["w0"], words["w1"] = words["w1"], words["w0"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused("another tokenizer than the backbone", other, tmp_path / "out", teacher=base)


def test_architectures_that_are_known_beforehand(tmp_path):
    assert architecture("tiny") == TINY_ARCHITECTURE
    assert architecture("owner/model") is None
    found = architecture(str(write_backbone(tmp_path / "b")))
    assert (found.family, found.layers, found.heads, found.max_length) == ("roberta", 4, 4, 22)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipeOpsError, match="config.json: not found"):
        architecture(str(tmp_path / "empty"))
    with pytest.raises(PipeOpsError, match="is a None model"):
        supported_family({}, "x")


def test_a_real_encoder(minilm, tmp_path):
    found = architecture(str(minilm))
    assert (found.family, found.layers, found.hidden_size, found.max_length) == ("bert", 6, 384, 512)
    fetch_backbone(str(minilm), tmp_path / "base")
    assert load_backbone(tmp_path / "base").dtype == torch.float32
    refused(
        "hidden size 16, the backbone 384",
        write_backbone(tmp_path / "s", family="bert"),
        tmp_path / "out",
        teacher=tmp_path / "base",
    )


def test_the_tiny_backbone_is_what_its_architecture_says(tmp_path):
    settings = PretrainingSection(examples=64, batch_size=16, threads=1)
    for name in ("once", "again"):
        pretrain_tiny(tmp_path / name, settings, ["generated-sentiment"])
    assert architecture(str(tmp_path / "once")) == TINY_ARCHITECTURE
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("once", "again")]
    assert weights[0] == weights[1]
    pretrain_tiny(tmp_path / "random", PretrainingSection(epochs=0), ["generated-sentiment"])
    assert (tmp_path / "random" / "model.safetensors").read_bytes() != weights[0]
