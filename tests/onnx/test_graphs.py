"""The two graphs made of the stages: structure, exit rule at its edges, limits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export_models import SHAPES, random_tokens, random_weights, tiny_shape
from onnx import GraphProto, ModelProto

from pipeops.errors import PipeOpsError
from pipeops.onnx.graphs import (
    MAX_EXITS,
    batch_graph,
    early_exit_graph,
    metadata_of,
    straight_graph,
    straightened,
    with_confidence,
    with_metadata,
    with_weights_in,
)
from pipeops.onnx.quantisation import quantise
from pipeops.onnx.runtime import EarlyExitModel
from pipeops.onnx.stages import WORDS_TABLE, emit_stages

PATH = Path("model.onnx")


def stitched(stitch, shape, weights=None) -> ModelProto:
    return stitch(emit_stages(shape, (weights or random_weights(shape)).__getitem__), shape)


def loaded(graph: ModelProto, folder) -> EarlyExitModel:
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return EarlyExitModel.load(path, threads=1)


def nested(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and, outside in, every branch within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nested(attribute.g)


def batched(stages, shape) -> ModelProto:
    return batch_graph(early_exit_graph(stages, shape))


@pytest.mark.parametrize("stitch", [early_exit_graph, straight_graph, batched])
@pytest.mark.parametrize("name", SHAPES)
def test_graphs_are_valid_and_name_every_tensor_once(stitch, name):
    model = stitched(stitch, SHAPES[name])
    onnx.checker.check_model(model, full_check=True)
    graphs = list(nested(model.graph))
    made = [output for graph in graphs for node in graph.node for output in node.output]
    made += [value.name for graph in graphs for value in graph.initializer]
    assert len(made) == len(set(made))


@pytest.mark.parametrize("name", SHAPES)
def test_a_stage_is_called_in_the_branch_that_needs_it(name):
    shape = SHAPES[name]
    model = stitched(early_exit_graph, shape)
    exit_before, calls = 0, {}
    for graph in nested(model.graph):
        if graph.name.endswith(".go_on"):
            exit_before = int(graph.name.split(".")[1])
        for node in graph.node:
            if node.domain == "pipeops":
                calls[node.op_type] = exit_before
    before = {f"stage.{k}": max([0, *(e for e in shape.exit_layers if e < k)]) for k in range(1, 4)}
    assert calls == before
    weights = [node for function in model.functions for node in function.node if node.op_type == "Constant"]
    held = sum(np.prod(node.attribute[0].t.dims, dtype=int) for node in weights)
    elsewhere = {w.name: np.prod(w.dims, dtype=int) for g in nested(model.graph) for w in g.initializer}
    table = shape.vocab_size * (shape.embedding_rank or shape.layout.word_size(shape))
    assert elsewhere.pop(WORDS_TABLE) == table
    assert sum(elsewhere.values()) <= 10 < held


def test_inputs_say_what_they_take():
    fixed = [[1, "length"], [1, "length"], [2]]
    free = [["batch", "length"], ["batch", "length"]]
    for stitch, shape, expected in (
        (early_exit_graph, tiny_shape(), fixed),
        (early_exit_graph, tiny_shape(exit_layers=(3,)), free),
        (straight_graph, tiny_shape(), free),
    ):
        inputs = stitched(stitch, shape).graph.input
        dims = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in inputs]
        assert dims == expected
        assert [value.name for value in inputs] == ["input_ids", "attention_mask", "thresholds"][: len(dims)]


@pytest.fixture(scope="module")
def certain(tmp_path_factory):
    """A model whose every exit is as sure as float32 can be: its logits are 0 and 200."""
    shape = tiny_shape()
    weights = random_weights(shape)
    for layer in shape.exit_layers:
        weights[f"exits.{layer}.out_proj.weight"][:] = 0
        weights[f"exits.{layer}.out_proj.bias"][:] = [0, 200]
    return loaded(stitched(early_exit_graph, shape, weights), tmp_path_factory.mktemp("certain"))


@pytest.mark.parametrize(
    ("thresholds", "layer"),
    [
        ([1.0, 1.0], 1),
        ([np.nextafter(np.float32(1), np.float32(2)), 1.0], 2),
        ([1.0000002, 1.0000002], 3),
        ([2.0, 2.0], 3),
        ([2.0, 0.0], 2),
        ([0.0, 2.0], 1),
    ],
)
def test_a_probability_of_one_reaches_one_but_nothing_above(certain, thresholds, layer):
    answer = certain.run(*random_tokens(certain.shape, [9]), thresholds)
    assert answer.exit_layer == layer
    np.testing.assert_array_equal(answer.logits, [[0, 200]])


def deep_shape(layers: int):
    return tiny_shape(
        heads_per_layer=(1,) * layers, ffn_per_layer=(4,) * layers, exit_layers=tuple(range(1, layers + 1))
    )


def test_the_deepest_nest_that_is_allowed_loads(tmp_path):
    shape = deep_shape(MAX_EXITS)
    model = loaded(stitched(early_exit_graph, shape), tmp_path)
    assert model.run(*random_tokens(shape, [9]), [2.0] * (MAX_EXITS - 1)).exit_layer == MAX_EXITS


def test_a_deeper_nest_is_refused():
    with pytest.raises(PipeOpsError, match=f"exit_layers: 33 exits, but a graph nests at most {MAX_EXITS}"):
        stitched(early_exit_graph, deep_shape(MAX_EXITS + 1))


def answering(shape, classes):
    """Weights of a model whose exits answer these classes, whatever the input."""
    weights = random_weights(shape)
    for layer, answer in zip(shape.exit_layers, classes, strict=True):
        weights[f"exits.{layer}.out_proj.weight"][:] = 0
        weights[f"exits.{layer}.out_proj.bias"][:] = np.eye(shape.num_labels)[answer]
    return weights


@pytest.mark.parametrize("restitched", [False, True])
@pytest.mark.parametrize(
    ("classes", "left_at"),
    [([1, 1, 1, 1], [1, 2, 3, 4]), ([0, 1, 1, 0], [1, 3, 4, 4]), ([1, 0, 0, 0], [1, 3, 4, 4]),
     ([0, 1, 0, 1], [1, 4, 4, 4])],
)  # fmt: skip
def test_patience_counts_exits_that_agree(classes, left_at, restitched, tmp_path):
    shape = deep_shape(4)
    weights = answering(shape, classes)
    stages = emit_stages(shape, weights.__getitem__)
    graph = (
        with_confidence(early_exit_graph(stages, shape), "patience", path=PATH)
        if restitched
        else early_exit_graph(stages, shape, confidence="patience")
    )
    onnx.checker.check_model(graph, full_check=True)
    model = loaded(graph, tmp_path)
    assert model.confidence == "patience"
    inputs = random_tokens(shape, [9])
    assert [model.run(*inputs, [patience] * 3).exit_layer for patience in (1, 2, 3, 4)] == left_at


def test_patience_counts_over_layers_without_exits(tmp_path):
    shape = tiny_shape(heads_per_layer=(4,) * 4, ffn_per_layer=(8,) * 4, exit_layers=(2, 4))
    graph = early_exit_graph(
        emit_stages(shape, answering(shape, [1, 0]).__getitem__), shape, confidence="patience"
    )
    model = loaded(graph, tmp_path)
    inputs = random_tokens(shape, [9])
    assert [model.run(*inputs, [patience]).exit_layer for patience in (1, 2)] == [2, 4]


@pytest.mark.parametrize("quantised", [False, True])
def test_restitching_for_entropy_decides_as_stages_with_entropy(quantised, tmp_path):
    shape = tiny_shape(num_labels=3)
    weights = random_weights(shape).__getitem__
    models = {}
    for kind in ("max_probability", "entropy"):
        stages = emit_stages(shape, weights, confidence=kind)
        stages = [quantise(stage) for stage in stages] if quantised else stages
        models[kind] = early_exit_graph(stages, shape, confidence=kind)
    before = models["max_probability"].SerializeToString(deterministic=True)
    restitched = with_confidence(models["max_probability"], "entropy", path=PATH)
    onnx.checker.check_model(restitched, full_check=True)
    assert models["max_probability"].SerializeToString(deterministic=True) == before
    (tmp_path / "by-stage").mkdir()
    ours, theirs = loaded(restitched, tmp_path), loaded(models["entropy"], tmp_path / "by-stage")
    assert ours.confidence == theirs.confidence == "entropy"
    layers = set()
    for seed in range(20):
        inputs = random_tokens(shape, [9], seed=seed)
        for threshold in (0.4, 0.6, 0.8):
            answers = [model.run(*inputs, [threshold] * 2) for model in (ours, theirs)]
            np.testing.assert_array_equal(*(answer.logits for answer in answers))
            layers.add(answers[0].exit_layer)
    assert layers == {1, 2, 3}


@pytest.mark.parametrize("confidence", ["max_probability", "entropy", "patience"])
@pytest.mark.parametrize("exit_layers", [(1, 2, 3), (2, 3), (3,)])
def test_a_straightened_graph_is_the_profiling_graph(confidence, exit_layers):
    shape = tiny_shape(exit_layers=exit_layers)
    stages = emit_stages(shape, random_weights(shape).__getitem__, confidence=confidence)
    model = early_exit_graph(stages, shape, confidence=confidence)
    before, expected = (
        graph.SerializeToString(deterministic=True) for graph in (model, straight_graph(stages, shape))
    )
    assert straightened(model).SerializeToString(deterministic=True) == expected
    assert model.SerializeToString(deterministic=True) == before


def test_what_need_not_be_stitched_anew_is_left_as_it_is():
    single = stitched(early_exit_graph, tiny_shape(exit_layers=(3,)))
    assert with_confidence(single, "patience", path=PATH) is single
    shape = tiny_shape()
    for confidence in ("max_probability", "entropy", "patience"):
        stages = emit_stages(shape, random_weights(shape).__getitem__, confidence=confidence)
        graph = early_exit_graph(stages, shape, confidence=confidence)
        assert with_confidence(graph, confidence, path=PATH) is graph


def test_only_graphs_of_the_right_kind_are_stitched_anew():
    shape = tiny_shape()
    with pytest.raises(PipeOpsError, match=r"model\.onnx: a graph of kind 'straight'"):
        with_confidence(stitched(straight_graph, shape), "patience", path=PATH)
    stages = emit_stages(shape, random_weights(shape).__getitem__, confidence="entropy")
    by_entropy = early_exit_graph(stages, shape, confidence="entropy")
    for confidence in ("patience", "max_probability"):
        message = (
            rf"model\.onnx: decides by entropy, where exits.confidence is {confidence}; export the model"
        )
        with pytest.raises(PipeOpsError, match=message):
            with_confidence(by_entropy, confidence, path=PATH)


def test_a_graph_that_is_stitched_anew_says_whose_it_is():
    graph = with_metadata(stitched(early_exit_graph, tiny_shape()), {"pipeops.seed": "2"})
    assert metadata_of(with_confidence(graph, "patience", path=PATH)) == metadata_of(graph) | {
        "pipeops.confidence": "patience"
    }


@pytest.mark.parametrize("confidence", ["max_probability", "entropy", "patience"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_batch_answers_as_its_inputs_do_alone(name, confidence, tmp_path):
    """At every exit some leave; those that go on are computed further, and no others."""
    shape = SHAPES[name]
    graph = early_exit_graph(
        emit_stages(shape, random_weights(shape).__getitem__, confidence=confidence),
        shape,
        confidence=confidence,
    )
    alone, layers = loaded(graph, tmp_path), set()
    together = EarlyExitModel.load(tmp_path / "model.onnx", threads=1, batch_tokens=10_000)
    inputs = [random_tokens(shape, [4 + seed % 19], seed=seed)[0][0] for seed in range(40)]
    for thresholds in ([0.7], [0.95], [2], [0]) if confidence != "patience" else ([1], [2], [3]):
        given = thresholds * (len(shape.exit_layers) - 1)
        expected = [alone.run(ids[None], np.ones_like(ids)[None], given) for ids in inputs]
        answers = together.run_many(inputs, given)
        assert answers.exit_layers.tolist() == [answer.exit_layer for answer in expected]
        layers |= set(answers.exit_layers.tolist())
        np.testing.assert_allclose(answers.logits, np.concatenate([a.logits for a in expected]), atol=1e-5)
    assert len(layers) > 1 or not shape.has_exits
    one_by_one = alone.run_many(inputs, given)
    np.testing.assert_array_equal(one_by_one.logits, np.concatenate([answer.logits for answer in expected]))


def test_a_second_graph_leaves_its_weights_in_the_file_of_the_first(tmp_path):
    shape = tiny_shape()
    graph = stitched(early_exit_graph, shape)
    model = loaded(graph, tmp_path)
    path, whole = tmp_path / "batch.onnx", batch_graph(graph).ByteSize()
    path.write_bytes(with_weights_in(batch_graph(graph), tmp_path / "model.onnx").SerializeToString())
    assert path.stat().st_size < whole / 2
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ids, mask = random_tokens(shape, [9])
    given = {"input_ids": ids, "attention_mask": mask, "thresholds": np.full(2, 2, np.float32)}
    np.testing.assert_array_equal(session.run(None, given)[0], model.run(ids, mask, [2, 2]).logits)
