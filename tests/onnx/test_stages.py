"""Stages: self-contained, chainable, quantisable one by one, and with BERT's segments."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export_models import SHAPES, bert, random_tokens, random_weights, tiny_shape
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from pipeops.errors import PipeOpsError
from pipeops.onnx.graphs import straight_graph
from pipeops.onnx.runtime import Profiler
from pipeops.onnx.stages import emit_stages, tensor


def stages_of(shape):
    return emit_stages(shape, random_weights(shape).__getitem__)


def run(model: ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = {value.name: inputs[value.name] for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, wanted), strict=True))


def profiler(model: ModelProto, path: Path) -> Profiler:
    path.write_bytes(model.SerializeToString())
    return Profiler.load(path, threads=1)


@pytest.mark.parametrize("name", SHAPES)
def test_stages_run_one_by_one_and_chain_by_name(name, tmp_path):
    shape = SHAPES[name]
    stages = stages_of(shape)
    ids, mask = random_tokens(shape, [12, 7, shape.max_length])
    values = {"input_ids": ids, "attention_mask": mask}
    for stage in stages:
        onnx.checker.check_model(stage, full_check=True)
        values |= run(stage, values)
    assert len(stages) == shape.num_layers
    profile = profiler(straight_graph(stages, shape), tmp_path / "profile.onnx").run(ids, mask)
    for index, layer in enumerate(shape.exit_layers):
        np.testing.assert_allclose(values[f"logits.{layer}"][:, 0], profile.logits[:, index], atol=1e-5)
        np.testing.assert_allclose(values[f"confidence.{layer}"], profile.confidence[:, index], atol=1e-5)
    exits = [int(key.removeprefix("logits.")) for key in values if key.startswith("logits.")]
    assert tuple(exits) == shape.exit_layers


def test_stages_share_no_name_but_the_interface():
    stages = stages_of(tiny_shape())
    names = [
        {output for node in stage.graph.node for output in node.output}
        | {w.name for w in stage.graph.initializer}
        for stage in stages
    ]
    assert not names[0] & names[1]
    assert not names[1] & names[2]
    assert all(node.name for stage in stages for node in stage.graph.node)


def test_weights_of_a_layer_appear_once():
    shape = tiny_shape()
    parameters = sum(weight.size for weight in random_weights(shape).values())
    unused = (shape.position_offset + shape.type_vocab_size) * shape.hidden_size
    stored = sum(
        numpy_helper.to_array(weight).size
        for stage in stages_of(shape)
        for weight in stage.graph.initializer
        if weight.data_type == onnx.TensorProto.FLOAT and not weight.name.endswith(".one")
    )
    assert stored == parameters - unused


def test_segments_equal_the_tokenizers():
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    pairs = tokenizer(["a b c", "a", "b"], ["c c", "b a c a", "c"], padding=True, return_tensors="np")
    single = tokenizer(["a b c b a", "a"], padding=True, return_tensors="np")
    shape = bert(sep_token_id=tokenizer.sep_token_id, pad_token_id=tokenizer.pad_token_id)
    stage = stages_of(shape)[0]
    stage.graph.output.append(tensor("embeddings.segments", onnx.TensorProto.INT32, "batch", "length"))
    for tokens in (pairs, single):
        values = run(stage, {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")})
        np.testing.assert_array_equal(values["embeddings.segments"], tokens["token_type_ids"])
    assert pairs["token_type_ids"].any()
    assert not single["token_type_ids"].any()


def test_one_token_more_or_less_shifts_nothing():
    """A token's embedding depends on where it is, not on how long the input is."""
    shape = tiny_shape()
    stage = stages_of(shape)[0]
    stage.graph.output.append(
        tensor("hidden.0", onnx.TensorProto.FLOAT, "batch", "length", shape.hidden_size)
    )
    ids, mask = random_tokens(shape, [shape.max_length])
    whole = run(stage, {"input_ids": ids, "attention_mask": mask})["hidden.0"]
    part = run(stage, {"input_ids": ids[:, :5], "attention_mask": mask[:, :5]})["hidden.0"]
    np.testing.assert_array_equal(whole[:, :5], part)


@pytest.mark.parametrize("name", ["roberta-pruned", "bert"])
def test_quantising_each_stage_leaves_no_float_product(name, tmp_path):
    shape = SHAPES[name]
    quantised = []
    for number, stage in enumerate(stages_of(shape)):
        before, after = tmp_path / f"{number}.onnx", tmp_path / f"{number}-int8.onnx"
        onnx.save(stage, before)
        quantize_dynamic(before, after, op_types_to_quantize=["MatMul", "Attention"])
        quantised.append(onnx.load(after))
        kinds = [node.op_type for node in quantised[-1].graph.node]
        assert not {"MatMul", "Attention"} & set(kinds)
        assert kinds.count("QAttention") == 1
        assert kinds.count("MatMulInteger") == 3 + 2  # of attention's output, two of the FFN; two of the exit
    ids, mask = random_tokens(shape, [12])
    exact = profiler(straight_graph(stages_of(shape), shape), tmp_path / "fp32.onnx").run(ids, mask)
    rounded = profiler(straight_graph(quantised, shape), tmp_path / "int8.onnx").run(ids, mask)
    assert 0 < np.abs(exact.logits - rounded.logits).max() < 0.3 * np.abs(exact.logits).max()


def test_unknown_activation_is_refused():
    with pytest.raises(PipeOpsError, match=r"hidden_act: cannot export 'swish'; .* gelu, relu"):
        stages_of(tiny_shape(hidden_act="swish"))


def test_same_weights_give_the_same_bytes():
    first, second = (
        [stage.SerializeToString(deterministic=True) for stage in stages_of(SHAPES["bert"])] for _ in range(2)
    )
    assert first == second
