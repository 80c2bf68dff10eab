"""Q: what is quantised, what it does to answers, and the search for products that were left float."""

import numpy as np
import onnx
import pytest
from export_models import SHAPES, random_tokens, random_weights, tiny_shape, write_checkpoint
from helpers import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

import pipeops.onnx.quantisation
from pipeops.errors import PipeOpsError
from pipeops.onnx.export import export
from pipeops.onnx.graphs import early_exit_graph, straight_graph
from pipeops.onnx.paths import graph_path
from pipeops.onnx.quantisation import float_products, quantise
from pipeops.onnx.runtime import EarlyExitModel, Profiler, force_exit
from pipeops.onnx.stages import emit_stages


def int8_stages(shape):
    return [quantise(stage) for stage in emit_stages(shape, random_weights(shape).__getitem__)]


def functions_of(model):
    return {function.name: list(function.node) for function in model.functions}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("stitch", [early_exit_graph, straight_graph])
def test_every_weight_of_a_product_is_int8_per_output_channel(name, stitch):
    shape = SHAPES[name]
    model = stitch(int8_stages(shape), shape)
    onnx.checker.check_model(model)
    assert float_products(model) == []
    for layer in range(1, shape.num_layers + 1):
        nodes = functions_of(model)[f"stage.{layer}"]
        constants = {
            n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in nodes if n.op_type == "Constant"
        }
        products = [node for node in nodes if node.op_type in ("MatMulInteger", "QAttention")]
        exits = 2 if layer in shape.exit_layers else 0
        widened = shape.embedding_rank > 0, shape.layout.word_size(shape) < shape.hidden_size
        projections = sum(widened) if layer == 1 else 0
        factors = 2 if shape.ffn_rank else 0
        assert len(products) == 4 + exits + projections + factors
        for product in products:
            weight = constants[product.input[1]]
            assert weight.dtype == np.int8
            name_of_weight = product.input[1].removesuffix("_quantized")
            assert constants[f"{name_of_weight}_scale"].shape == (weight.shape[1],)
    tables = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert tables["embeddings.words.table_quantized"] == TensorProto.UINT8
    assert "embeddings.words.table" not in tables


def test_a_stage_is_not_changed_by_quantising_it():
    shape = tiny_shape()
    stage = emit_stages(shape, random_weights(shape).__getitem__)[0]
    before = stage.SerializeToString(deterministic=True)
    quantise(stage)
    assert stage.SerializeToString(deterministic=True) == before


def test_fp32_graphs_name_every_product_that_is_float():
    shape = tiny_shape(exit_layers=(1, 3))
    stages = emit_stages(shape, random_weights(shape).__getitem__)
    per_layer = [f"{part}.product" for part in ("attention.output", "ffn.inner", "ffn.output")]
    expected = [f"layer.{k}.{part}" for k in (1, 2, 3) for part in ("attention", *per_layer)]
    expected += [f"{part}.product" for k in (1, 3) for part in (f"exit.{k}.dense", f"logits.{k}")]
    for stitch in (early_exit_graph, straight_graph):
        assert sorted(float_products(stitch(stages, shape))) == sorted(expected)


def graph_with_one_float_product(*, weight_as):
    """A product in the else branch within a then branch; its weight is held in several ways."""
    value = numpy_helper.from_array(np.ones((2, 2), np.float32), "weight")
    nodes, initializers, operand = [], [], "weight"
    if weight_as == "initializer":
        initializers = [value]
    if weight_as in ("constant", "transposed constant"):
        nodes.append(helper.make_node("Constant", [], ["weight"], value=value))
    if weight_as == "transposed constant":
        nodes.append(helper.make_node("Transpose", ["weight"], ["turned"]))
        operand = "turned"
    if weight_as == "dequantised":
        arrays = {"held": np.ones((2, 2), np.int8), "scale": np.float32(0.5), "zero": np.int8(0)}
        initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()]
        nodes.append(helper.make_node("DequantizeLinear", list(arrays), ["weight"]))
    outer = [value] if weight_as == "outer initializer" else []
    nodes.append(helper.make_node("MatMul", ["x", operand], ["deep"], name="the product"))
    out = [helper.make_tensor_value_info("deep", TensorProto.FLOAT, None)]
    inner = helper.make_graph(nodes, "inner", [], out, initializers)
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["same"])], "same", [],
                             [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)])  # fmt: skip
    choice = helper.make_node("If", ["c"], ["mid"], then_branch=same, else_branch=inner)
    mid = helper.make_graph(
        [choice], "mid", [], [helper.make_tensor_value_info("mid", TensorProto.FLOAT, None)]
    )
    top = [
        helper.make_node("If", ["c"], ["y"], then_branch=mid, else_branch=same),
        helper.make_node("MatMul", ["x", "y"], ["z"], name="no weight"),
    ]
    return helper.make_model(helper.make_graph(top, "top", [], [], outer))


@pytest.mark.parametrize(
    "weight_as", ["initializer", "constant", "transposed constant", "dequantised", "outer initializer"]
)
def test_one_float_product_is_found_however_deep_and_however_its_weight_is_held(weight_as):
    assert float_products(graph_with_one_float_product(weight_as=weight_as)) == ["the product"]


def test_a_product_left_float_is_refused(monkeypatch):
    quantize = pipeops.onnx.quantisation.quantize_dynamic

    def forgetful(*args, nodes_to_quantize, **options):
        quantize(*args, nodes_to_quantize=[n for n in nodes_to_quantize if "ffn.inner" not in n], **options)

    monkeypatch.setattr(pipeops.onnx.quantisation, "quantize_dynamic", forgetful)
    with pytest.raises(PipeOpsError, match=r"Q: stage\.1: layer\.1\.ffn\.inner\.product kept a float weight"):
        int8_stages(tiny_shape())


@pytest.mark.parametrize("name", SHAPES)
def test_padding_does_not_change_a_quantised_answer(name, tmp_path):
    """Padding is a copy of the first token in every product, and so has no part in the scales."""
    shape = SHAPES[name]
    export(write_checkpoint(tmp_path / "torch", shape), tmp_path)
    model = EarlyExitModel.load(graph_path(tmp_path, "model", quantised=True), threads=1)
    profiler = Profiler.load(graph_path(tmp_path, "profile", quantised=True), threads=1)
    for seed in range(5):
        length = 5 + 3 * seed
        ids, mask = random_tokens(shape, [length], seed)
        more = shape.max_length - length
        padded = (
            np.pad(ids, ((0, 0), (0, more)), constant_values=shape.pad_token_id),
            np.pad(mask, ((0, 0), (0, more))),
        )
        np.testing.assert_allclose(profiler.run(*padded).logits, profiler.run(ids, mask).logits, atol=1e-6)
        for layer, logits in zip(shape.exit_layers, profiler.run(ids, mask).logits[0], strict=True):
            answer = model.run(*padded, force_exit(layer, shape.exit_layers))
            assert answer.exit_layer == layer
            np.testing.assert_allclose(answer.logits[0], logits, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SHAPES if SHAPES[name].pooling == "mean"])
def test_a_mean_over_tokens_has_the_same_bits_with_and_without_padding(name, tmp_path):
    shape = SHAPES[name]
    export(write_checkpoint(tmp_path / "torch", shape), tmp_path)
    profiler = Profiler.load(graph_path(tmp_path, "profile", quantised=True), threads=1)
    for seed in range(30):
        length = 4 + seed % (shape.max_length - 4)
        ids, mask = random_tokens(shape, [length], seed)
        answer = profiler.run(ids, mask).logits
        for more in range(1, shape.max_length - length + 1):
            padded = np.pad(ids, ((0, 0), (0, more)), constant_values=shape.pad_token_id)
            kept = np.pad(mask, ((0, 0), (0, more)))
            np.testing.assert_array_equal(profiler.run(padded, kept).logits, answer)


def test_one_int8_file_holds_all_exits_and_is_smaller(tmp_path):
    shape = tiny_shape(hidden_size=128, head_size=32, ffn_per_layer=(512,) * 3)
    export(write_checkpoint(tmp_path / "torch", shape), tmp_path)
    model = EarlyExitModel.load(tmp_path / "model-int8.onnx", threads=1)
    ids, mask = random_tokens(shape, [9])
    layers = [model.run(ids, mask, force_exit(k, shape.exit_layers)).exit_layer for k in shape.exit_layers]
    assert layers == [1, 2, 3]
    sizes = [(tmp_path / name).stat().st_size for name in ("model-int8.onnx", "model.onnx")]
    assert sizes[0] < 0.3 * sizes[1]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    profilers = []
    for pooling in ("first", "mean"):
        tiny_model("bert", exits=True, pooling=pooling).save_pretrained(folder / pooling)
        export(folder / pooling, folder / pooling)
        paths = [graph_path(folder / pooling, "profile", quantised=quantised) for quantised in (False, True)]
        profilers += [Profiler.load(path, threads=1) for path in paths]
    return profilers


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.integers(5, 59), min_size=1, max_size=20), padding=st.integers(0, 12))
def test_dynamic_length_never_changes_an_answer(graphs, words, padding):
    ids = np.array([[0, *words, 2]])
    padding = min(padding, 24 - ids.shape[1])
    mask = np.ones_like(ids)
    padded = np.pad(ids, ((0, 0), (0, padding))), np.pad(mask, ((0, 0), (0, padding)))
    for profiler in graphs:
        short, long = profiler.run(ids, mask), profiler.run(*padded)
        np.testing.assert_allclose(short.logits, long.logits, atol=1e-5)
        margin = np.abs(np.diff(short.logits, axis=-1))[..., 0]
        clear = margin > 1e-5
        assert (short.logits.argmax(-1) == long.logits.argmax(-1))[clear].all()


def test_padded_and_unpadded_int8_agree_on_real_sentences(glue, minilm, tmp_path):
    """All of SST-2's validation split, on a real pretrained encoder under random classifiers."""
    import torch

    from pipeops.data.tasks import TASKS, split_batches
    from pipeops.data.tokenised import load_tokenised, tokenise
    from pipeops.models.backbones import fetch_backbone, load_backbone, load_tokenizer
    from pipeops.models.multi_exit import from_pretrained_backbone

    backbone = tmp_path / "backbone"
    fetch_backbone(str(minilm), backbone)
    torch.manual_seed(0)
    encoder, labels = load_backbone(backbone), ("negative", "positive")
    from_pretrained_backbone(encoder, sep_token_id=102, labels=labels).save_pretrained(tmp_path / "torch")
    export(tmp_path / "torch", tmp_path)
    data = tmp_path / "validation.parquet"
    rows = split_batches(TASKS["sst2"], "validation", glue=str(glue), examples=None)
    tokenise(TASKS["sst2"], rows, load_tokenizer(backbone), data, max_length=128)
    split = load_tokenised(data)
    profiler = Profiler.load(graph_path(tmp_path, "profile", quantised=True), threads=1)
    unpadded = [profiler.run(ids[None], np.ones_like(ids)[None]).logits.argmax() for ids in split.input_ids]
    padded = [profiler.run(*split.padded(i)).logits.argmax() for i in range(len(split))]
    agree = np.equal(unpadded, padded)
    assert len(agree) == 872
    assert np.mean(agree) >= 0.995


def to_an_empty_file(_, path, **__):
    path.touch()


def from_an_empty_file(_, path, **options):
    quantize_dynamic(onnx.ModelProto(), path, **options)


@pytest.mark.parametrize("written", [to_an_empty_file, from_an_empty_file])
def test_a_stage_that_is_not_written_whole_is_refused(written, monkeypatch):
    stage = emit_stages(shape := tiny_shape(), random_weights(shape).__getitem__)[0]
    monkeypatch.setattr(pipeops.onnx.quantisation, "quantize_dynamic", written)
    with pytest.raises(PipeOpsError, match="files there are not written whole; look at its disk"):
        quantise(stage)
