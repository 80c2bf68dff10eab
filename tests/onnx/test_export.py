"""Exported models against PyTorch, and what export refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_models import SHAPES, random_tokens, random_weights, tiny_shape, write_checkpoint
from safetensors.numpy import save_file

import pipeops.models.weights
from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape, tensor_shapes
from pipeops.onnx.export import export
from pipeops.onnx.graphs import load, straightened
from pipeops.onnx.runtime import EarlyExitModel, Profiler, force_exit

TOLERANCE = 1e-4


def exported(checkpoint: Path, folder: Path) -> tuple[EarlyExitModel, Profiler]:
    export(checkpoint, folder)
    return (
        EarlyExitModel.load(folder / "model.onnx", threads=1),
        Profiler.load(folder / "profile.onnx", threads=1),
    )


def hugging_face_logits(shape: ModelShape, weights: dict[str, np.ndarray], ids, mask) -> np.ndarray:
    """Every exit's logits by transformers' own encoder: (batch, exits, labels)."""
    import torch
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    families = {"roberta": (RobertaConfig, RobertaModel), "bert": (BertConfig, BertModel)}
    config_class, model_class = families[shape.family]
    copied = ["vocab_size", "hidden_size", "hidden_act", "type_vocab_size", "pad_token_id", "layer_norm_eps"]
    config = config_class(
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.heads_per_layer[0],
        intermediate_size=shape.ffn_per_layer[0],
        max_position_embeddings=shape.max_position_embeddings,
        **{name: getattr(shape, name) for name in copied},
    )
    encoder = model_class(config, add_pooling_layer=False).eval()
    tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
    prefix = "backbone."
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    segments = np.zeros_like(ids)
    if shape.family == "bert" and shape.type_vocab_size > 1:
        for row, tokens, seen in zip(segments, ids, mask, strict=True):
            first_separator = int(np.flatnonzero(tokens == shape.sep_token_id)[0])
            row[first_separator + 1 : seen.sum()] = 1
    with torch.no_grad():
        hidden = encoder(
            torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            token_type_ids=torch.from_numpy(segments),
            output_hidden_states=True,
        ).hidden_states
    logits = []
    for k in shape.exit_layers:
        dense, dense_bias, out, out_bias = (
            weights[f"exits.{k}.{part}"]
            for part in ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias")
        )
        rows = zip(hidden[k].numpy(), mask, strict=True)
        seen = [states[:1] if shape.pooling == "first" else states[kept == 1] for states, kept in rows]
        pooled = np.stack([states.mean(axis=0) for states in seen])
        logits.append(np.tanh(pooled @ dense.T + dense_bias) @ out.T + out_bias)
    return np.stack(logits, axis=1)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, shape in SHAPES.items()
        if shape.family in ("roberta", "bert") and not {"pruned", "slender", "rank"} & set(name.split("-"))
    ],
)
def test_every_exit_equals_transformers(name, tmp_path):
    shape = SHAPES[name]
    model, profiler = exported(write_checkpoint(tmp_path, shape), tmp_path)
    ids, mask = random_tokens(shape, [12, 7, shape.max_length])
    expected = hugging_face_logits(shape, random_weights(shape), ids, mask)
    assert expected.std() > 0.1
    np.testing.assert_allclose(profiler.run(ids, mask).logits, expected, atol=TOLERANCE, rtol=0)
    for row in range(len(ids)):
        length = mask[row].sum()
        for index, layer in enumerate(shape.exit_layers):
            thresholds = force_exit(layer, shape.exit_layers)
            for end in (length, ids.shape[1]):  # not padded, padded
                answer = model.run(ids[row : row + 1, :end], mask[row : row + 1, :end], thresholds)
                assert answer.exit_layer == layer
                np.testing.assert_allclose(answer.logits[0], expected[row, index], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_every_exit_equals_our_model(name, tmp_path):
    """Through a checkpoint that PyTorch wrote, pruned models included."""
    import torch

    from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification

    shape = SHAPES[name]
    torch.manual_seed(0)
    config = MultiExitConfig.from_shape(shape).with_shape(initializer_range=0.3)
    reference = MultiExitForSequenceClassification(config).eval()
    reference.save_pretrained(tmp_path)
    model, profiler = exported(tmp_path, tmp_path)
    assert model.shape == profiler.shape == shape
    ids, mask = random_tokens(shape, [12, 7, shape.max_length])
    with torch.no_grad():
        output = reference(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    expected = torch.stack(output.exit_logits, dim=1).numpy()
    np.testing.assert_allclose(profiler.run(ids, mask).logits, expected, atol=TOLERANCE, rtol=0)
    never = [2.0] * (len(shape.exit_layers) - 1)
    last = model.run(ids[:1], mask[:1], never)
    np.testing.assert_allclose(last.logits, output.logits[:1].numpy(), atol=TOLERANCE, rtol=0)


def test_tensor_shapes_are_those_of_the_checkpoint():
    from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification

    for shape in SHAPES.values():
        state = MultiExitForSequenceClassification(MultiExitConfig.from_shape(shape)).state_dict()
        assert tensor_shapes(shape) == {name: tuple(value.shape) for name, value in state.items()}


def test_same_checkpoint_gives_the_same_bytes(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", tiny_shape())
    for name in ("first", "second"):
        exported(checkpoint, tmp_path / name)
    for file in ("model.onnx", "profile.onnx"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_both_graphs_are_about_as_large_as_the_checkpoint(tmp_path):
    shape = tiny_shape(vocab_size=5000)
    exported(write_checkpoint(tmp_path, shape), tmp_path)
    checkpoint, model, profile = (
        (tmp_path / name).stat().st_size for name in ("model.safetensors", "model.onnx", "profile.onnx")
    )
    assert model <= 1.05 * profile
    assert model <= 1.05 * checkpoint


def refused(checkpoint: Path, message: str) -> None:
    """Export fails with that message, in one line, and what was exported before is still there."""
    model = checkpoint / "model.onnx"
    model.write_bytes(b"earlier")
    with pytest.raises(PipeOpsError, match=message) as caught:
        export(checkpoint, checkpoint)
    assert "\n" not in str(caught.value)
    assert model.read_bytes() == b"earlier"
    assert not list(checkpoint.glob("*.tmp")) + list(checkpoint.glob(".*.tmp"))


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights_are_refused(kept, tmp_path):
    file = write_checkpoint(tmp_path, tiny_shape()) / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    refused(tmp_path, r"model\.safetensors: damaged .*; train the model again")


def test_absent_weights_are_refused(tmp_path):
    write_checkpoint(tmp_path, tiny_shape())
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, r"model\.safetensors: not found; train the model again")


def test_tensors_that_disagree_with_the_configuration_are_refused(tmp_path):
    name = "backbone.encoder.layer.1.attention.self.query.bias"
    weights = random_weights(tiny_shape())
    without = {key: value for key, value in weights.items() if key != name}
    for changed, message in (
        (without, r"implies F32 \[32\], found none"),
        (without | {name: weights[name][:-8]}, r"implies F32 \[32\], found F32 \[24\]"),
        (without | {name: weights[name].astype(np.float16)}, r"implies F32 \[32\], found F16 \[32\]"),
    ):
        write_checkpoint(tmp_path, tiny_shape())
        save_file(changed, tmp_path / "model.safetensors")
        refused(tmp_path, f"{name}: config.json {message}; train the model again")


def test_tensors_unknown_to_the_configuration_are_refused(tmp_path):
    write_checkpoint(tmp_path, tiny_shape())
    (tmp_path / "config.json").write_text(json.dumps(tiny_shape(exit_layers=(3,)).to_config()))
    refused(tmp_path, r"exits\.1\.dense\.bias: config.json implies none, found F32 \[32\]")


def test_weights_too_large_for_a_file_are_refused(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, tiny_shape())
    monkeypatch.setattr(pipeops.models.weights, "MAX_WEIGHTS", 1000)
    refused(tmp_path, r"model\.safetensors: \d+ bytes, .* 2 GiB; use a smaller backbone")


def test_unknown_activation_is_refused(tmp_path):
    write_checkpoint(tmp_path, tiny_shape(hidden_act="swish"))
    refused(tmp_path, "hidden_act: cannot export 'swish'")


def test_neither_torch_nor_transformers_is_imported(tmp_path):
    """Exporting and running, from a fresh interpreter."""
    checkpoint = write_checkpoint(tmp_path, tiny_shape())
    code = f"""
import sys
from pathlib import Path
from pipeops.onnx.export import export
from pipeops.onnx.runtime import EarlyExitModel
folder = Path({str(checkpoint)!r})
export(folder, folder)
answer = EarlyExitModel.load(folder / "model.onnx", threads=1).run([[0, 5, 2]], [[1, 1, 1]], [2, 2])
print(answer.exit_layer, *sorted({{"torch", "transformers", "datasets", "pandas"}} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["3"]


FILES = [f"{kind}{precision}.onnx" for kind in ("model", "profile") for precision in ("", "-int8")]


def nodes_of(graph):
    """Every node of a graph and of its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


@pytest.mark.parametrize("name", ["bert-mean", "bert-single", "electra-slender-mean", "modernbert"])
def test_an_inlined_file_has_no_functions_passes_the_full_check_and_answers_the_same(name, tmp_path):
    shape = SHAPES[name]
    checkpoint = write_checkpoint(tmp_path / "checkpoint", shape)
    for folder, inline in (("plain", False), ("inlined", True)):
        export(checkpoint, tmp_path / folder, inline=inline)
        for file in FILES:
            model = onnx.load(tmp_path / folder / file)
            onnx.checker.check_model(model, full_check=True)
            assert bool(model.functions) != inline
            assert not inline or all(node.domain != "pipeops" for node in nodes_of(model.graph))
    ids, mask = random_tokens(shape, [9])
    for file in FILES:
        kind = EarlyExitModel if file.startswith("model") else Profiler
        plain, inlined = (kind.load(tmp_path / folder / file, threads=1) for folder in ("plain", "inlined"))
        thresholds = [force_exit(layer, shape.exit_layers) for layer in shape.exit_layers]
        for given in [(one,) for one in thresholds] if kind is EarlyExitModel else [()]:
            expected, found = (model.run(ids, mask, *given) for model in (plain, inlined))
            for one, other in zip(expected, found, strict=True):
                np.testing.assert_array_equal(one, other)


def test_an_inlined_file_is_stitched_no_other_way(tmp_path):
    export(write_checkpoint(tmp_path / "checkpoint", tiny_shape()), tmp_path, inline=True)
    with pytest.raises(PipeOpsError, match="without functions; export the model again, without --inline"):
        straightened(load(tmp_path / "model.onnx"))


def test_openvino_reads_an_inlined_file_and_answers_the_same(tmp_path):
    openvino = pytest.importorskip("openvino", reason="pip install -r benchmarks/engines-requirements.txt")
    shape = SHAPES["bert-mean"]
    export(write_checkpoint(tmp_path / "checkpoint", shape), tmp_path, inline=True)
    ids, mask = random_tokens(shape, [9])
    model = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for layer in shape.exit_layers:
        thresholds = force_exit(layer, shape.exit_layers)
        answer = EarlyExitModel.load(tmp_path / "model.onnx", threads=1).run(ids, mask, thresholds)
        given = {"input_ids": ids, "attention_mask": mask, "thresholds": thresholds}
        logits, exit_layer = model(given).values()
        np.testing.assert_allclose(logits, answer.logits, atol=TOLERANCE)
        assert exit_layer[0] == answer.exit_layer == layer
    with pytest.raises(RuntimeError, match="QAttention"):
        openvino.Core().read_model(tmp_path / "model-int8.onnx")


@pytest.mark.parametrize("name", ["bert-mean", "roberta-sparse", "modernbert"])
def test_a_model_cut_at_an_exit_answers_as_that_exit_for_any_batch(name, tmp_path):
    shape = SHAPES[name]
    checkpoint = write_checkpoint(tmp_path / "checkpoint", shape)
    _, profiler = exported(checkpoint, tmp_path / "whole")
    ids, mask = random_tokens(shape, [9, 14, 5])
    expected = profiler.run(ids, mask).logits[:, shape.exit_layers.index(2)]
    export(checkpoint, tmp_path / "cut", layer=2)
    cut = EarlyExitModel.load(tmp_path / "cut/model.onnx", threads=1)
    logits, exit_layers = cut.session.run(None, {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert exit_layers.tolist() == [2, 2, 2]
    sizes = [(tmp_path / folder / "model.onnx").stat().st_size for folder in ("cut", "whole")]
    assert sizes[0] < sizes[1]
    onnx.checker.check_model(onnx.load(tmp_path / "cut/model.onnx"), full_check=True)


def test_a_model_is_cut_at_an_exit_only(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", SHAPES["roberta-sparse"])
    with pytest.raises(
        PipeOpsError, match=r"--layer: .*checkpoint has no exit after layer 1; give one of 2, 3"
    ):
        export(checkpoint, tmp_path / "out", layer=1)
    assert not (tmp_path / "out").exists()
