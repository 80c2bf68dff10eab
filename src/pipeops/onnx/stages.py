"""One stage of a multi-exit encoder as a small ONNX model, emitted from the weights without tracing.

A stage is one encoder layer and its exit, where it has one; the first stage also embeds the tokens. It is a
model of its own, so that it can be transformed by itself (quantised, say) before the stages are stitched.
Tensors are named after the stage they belong to, so stages share no name but those of their interface:

    input_ids, attention_mask -> stage 1 -> mask, hidden.1, logits.1, confidence.1
    mask, hidden.1            -> stage 2 -> hidden.2, logits.2, confidence.2 ...

``hidden.k`` is (batch, length, hidden_size), ``logits.k`` (batch, num_labels), ``confidence.k`` (batch,) and
``mask`` the attention mask as int32.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.models.weights import Weights
from pipeops.settings import Confidence

OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
IR_VERSION = 10
# By Hugging Face's name. Gelu is the exact one, by the error function.
ACTIVATIONS = {"gelu": "Gelu", "relu": "Relu"}
WORDS = "embeddings.words"
"""The node that looks up the word embeddings."""


def emit_stages(
    shape: ModelShape, weights: Weights, *, confidence: Confidence = "max_probability"
) -> list[ModelProto]:
    """Emit the stages of a model, one per layer, first to last.

    Args:
        shape: the model's shape.
        weights: reads a tensor of the checkpoint; its shape must be the one that ``shape`` implies.
        confidence: how sure an exit is of its answer; see ``sections.ExitsSection``.

    Raises:
        PipeOpsError: the activation is not supported.
    """
    if shape.hidden_act not in ACTIVATIONS:
        supported = ", ".join(ACTIVATIONS)
        raise PipeOpsError(f"hidden_act: cannot export {shape.hidden_act!r}; use a backbone with {supported}")
    return [_emit_stage(layer, shape, weights, confidence) for layer in range(1, shape.num_layers + 1)]


def _emit_stage(layer: int, shape: ModelShape, weights: Weights, confidence: Confidence) -> ModelProto:
    stage = _Stage(shape, weights)
    mask = tensor("mask", TensorProto.INT32, "batch", "length")
    before, after = (
        tensor(f"hidden.{k}", TensorProto.FLOAT, "batch", "length", shape.hidden_size)
        for k in (layer - 1, layer)
    )
    inputs, outputs = [mask, before], [after]
    if layer == 1:
        inputs, outputs = token_inputs("batch"), [mask, after]
        stage.embeddings()
    stage.encoder_layer(layer)
    if layer in shape.exit_layers:
        stage.exit(layer, confidence)
        outputs.append(tensor(f"logits.{layer}", TensorProto.FLOAT, "batch", shape.num_labels))
        outputs.append(tensor(f"confidence.{layer}", TensorProto.FLOAT, "batch"))
    name = f"stage.{layer}"
    graph = helper.make_graph(stage.nodes, name, inputs, outputs, stage.initializers, value_info=stage.types)
    return make_model(graph)


def make_model(graph: GraphProto) -> ModelProto:
    """Wrap a graph into a model of the operator sets in use here."""
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="pipeops")


def token_inputs(batch: int | str) -> list[ValueInfoProto]:
    """Declare what every model takes: ``input_ids`` and ``attention_mask``, int64 (batch, length)."""
    return [tensor(name, TensorProto.INT64, batch, "length") for name in ("input_ids", "attention_mask")]


def tensor(name: str, dtype: int, *dims: int | str) -> ValueInfoProto:
    """Declare a tensor of a graph's interface; a dimension is a size or the name of a free one."""
    return helper.make_tensor_value_info(name, dtype, dims)


class _Stage:
    """The nodes and weights of a stage in the making. Methods return the name of the tensor they compute."""

    def __init__(self, shape: ModelShape, weights: Weights) -> None:
        self.shape = shape
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.types: list[ValueInfoProto] = []

    def embeddings(self) -> str:
        """Embed ``input_ids`` into ``hidden.0`` and cast ``attention_mask`` to ``mask``."""
        source = "backbone.embeddings"
        types = self.weights(f"{source}.token_type_embeddings.weight")
        # Inputs are padded on the right, so the first token always reads the same row.
        positions = self.weights(f"{source}.position_embeddings.weight")[self.shape.position_offset :]
        segmented = self.shape.family == "bert" and self.shape.type_vocab_size > 1
        mask = self.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        summed = self._word_embeddings(f"{source}.word_embeddings")
        # Where every token has type 0, its row is folded into the positions.
        table = self.constant("embeddings.positions.table", positions if segmented else positions + types[0])
        start = self.constant("embeddings.positions.start", np.array([0]))
        length = self.node("Shape", ["input_ids"], "embeddings.length", start=1, end=2)
        rows = self.node("Slice", [table, start, length], "embeddings.positions")
        summed = self.node("Add", [summed, rows], "embeddings.placed")
        if segmented:
            types_table = self.constant("embeddings.types.table", types)
            rows = self.node("Gather", [types_table, self._segments(mask)], "embeddings.types")
            summed = self.node("Add", [summed, rows], "embeddings.typed")
        normed = self._layer_norm(summed, "embeddings.normed", f"{source}.LayerNorm")
        return self._padding_like_first(normed, "hidden.0")

    def encoder_layer(self, layer: int) -> str:
        """Turn ``hidden.{layer - 1}`` into ``hidden.{layer}`` by a post-norm transformer layer."""
        source, name, x = f"backbone.encoder.layer.{layer - 1}", f"layer.{layer}", f"hidden.{layer - 1}"
        attended = self._attention(x, f"{name}.attention", f"{source}.attention.self", layer)
        attended = self._linear(attended, f"{name}.attention.output", f"{source}.attention.output.dense")
        x = self.node("Add", [attended, x], f"{name}.attention.sum")
        x = self._layer_norm(x, f"{name}.attention.normed", f"{source}.attention.output.LayerNorm")
        inner = self._ffn_linear(x, f"{name}.ffn.inner", f"{source}.intermediate.dense")
        inner = self.node(ACTIVATIONS[self.shape.hidden_act], [inner], f"{name}.ffn.active")
        outer = self._ffn_linear(inner, f"{name}.ffn.output", f"{source}.output.dense")
        x = self.node("Add", [outer, x], f"{name}.ffn.sum")
        return self._layer_norm(x, f"hidden.{layer}", f"{source}.output.LayerNorm")

    def exit(self, layer: int, confidence: Confidence) -> str:
        """Classify what is pooled of ``hidden.{layer}``, and say how sure the answer is."""
        source, name = f"exits.{layer}", f"exit.{layer}"
        x = self._pooled(f"hidden.{layer}", name)
        x = self._linear(x, f"{name}.dense", f"{source}.dense")
        x = self.node("Tanh", [x], f"{name}.tanh")
        logits = self._linear(x, f"logits.{layer}", f"{source}.out_proj")
        probabilities = self.node("Softmax", [logits], f"{name}.probabilities", axis=-1)
        axis = self.constant(f"{name}.axis", np.array([-1]))
        if confidence == "entropy":
            logarithms = self.node("LogSoftmax", [logits], f"{name}.logarithms", axis=-1)
            products = self.node("Mul", [probabilities, logarithms], f"{name}.products")
            negative = self.node("ReduceSum", [products, axis], f"{name}.negative_entropy", keepdims=0)
            sure = self.node("Exp", [negative], f"{name}.sure_by_entropy")
        else:
            sure = self.node("ReduceMax", [probabilities, axis], f"{name}.largest", keepdims=0)
        # Rounding must not carry it past 1: a threshold above 1 means never.
        one = self.constant(f"{name}.one", np.array(1, dtype=np.float32))
        return self.node("Min", [sure, one], f"confidence.{layer}")

    def _pooled(self, x: str, name: str) -> str:
        """The first token's state, or the mean over the tokens that are not padding: (batch, hidden)."""
        if self.shape.pooling == "first":
            first = self.constant(f"{name}.index", np.array(0))
            return self.node("Gather", [x, first], f"{name}.token", axis=1)
        last_axis = self.constant(f"{name}.last_axis", np.array([-1]))
        token_axis = self.constant(f"{name}.token_axis", np.array([1]))
        column = self.node("Unsqueeze", ["mask", last_axis], f"{name}.column")
        kept = self.node("Cast", [column], f"{name}.kept", to=TensorProto.FLOAT)
        states = self.node("Mul", [x, kept], f"{name}.states")
        total = self.node("ReduceSum", [states, token_axis], f"{name}.total", keepdims=0)
        count = self.node("ReduceSum", [kept, token_axis], f"{name}.count", keepdims=0)
        return self.node("Div", [total, count], f"{name}.mean")

    def node(
        self, op: str, inputs: list[str], output: str, *, domain: str = "", **attributes: int | float
    ) -> str:
        """Append a node with one output, and named like it."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def constant(self, name: str, value: NDArray) -> str:
        """Append an initializer."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def _word_embeddings(self, source: str) -> str:
        """Look the words up; where the table is of a low rank, widen its rows."""
        factorised = self.shape.embedding_rank > 0
        weight = self.weights(f"{source}.table.weight" if factorised else f"{source}.weight")
        found = self.node("Gather", [self.constant(f"{WORDS}.table", weight), "input_ids"], WORDS)
        if not factorised:
            return found
        # The projection is a product too, so padding must have no say in its scale either.
        found = self._padding_like_first(found, f"{WORDS}.kept")
        projection = self.constant(f"{WORDS}.projection", self.weights(f"{source}.projection.weight").T)
        return self.node("MatMul", [found, projection], f"{WORDS}.wide")

    def _padding_like_first(self, x: str, name: str) -> str:
        """Give padding the state of the first token.

        Nothing attends to padding, so it then keeps the first token's state in every layer. In fp32 that
        changes no answer. In int8 all positions of a product share one scale. Padding does not affect it,
        so padded and unpadded inputs get the same answer.
        """
        start, end, axis = (
            self.constant(f"{name}.{part}", np.array([value]))
            for part, value in (("start", 0), ("end", 1), ("axis", 1))
        )
        first = self.node("Slice", [x, start, end, axis], f"{name}.first")
        last_axis = self.constant(f"{name}.last_axis", np.array([-1]))
        column = self.node("Unsqueeze", ["attention_mask", last_axis], f"{name}.column")
        kept = self.node("Cast", [column], f"{name}.kept", to=TensorProto.BOOL)
        return self.node("Where", [kept, x, first], name)

    def _segments(self, mask: str) -> str:
        """Segment of each token (0 or 1): whether a separator came before it, and 0 on padding."""
        name = "embeddings.segments"
        separator = self.constant(f"{name}.separator", np.array(self.shape.sep_token_id))
        axis = self.constant(f"{name}.axis", np.array(1))
        zero = self.constant(f"{name}.zero", np.array(0, dtype=np.int32))
        found = self.node("Equal", ["input_ids", separator], f"{name}.found")
        found = self.node("Cast", [found], f"{name}.counted", to=TensorProto.INT32)
        before = self.node("CumSum", [found, axis], f"{name}.before", exclusive=1)
        second = self.node("Greater", [before, zero], f"{name}.second")
        second = self.node("Cast", [second], f"{name}.unmasked", to=TensorProto.INT32)
        return self.node("Mul", [second, mask], name)

    def _attention(self, x: str, name: str, source: str, layer: int) -> str:
        """Multi-head self-attention with one packed product for queries, keys and values."""
        parts = ("query", "key", "value")
        weight, bias = (
            np.concatenate([self.weights(f"{source}.{part}.{kind}") for part in parts])
            for kind in ("weight", "bias")
        )
        packed = self._affine(x, f"{name}.qkv", weight, bias)
        split = [f"{name}.{part}" for part in parts]
        self.nodes.append(
            helper.make_node("Split", [packed], split, name=f"{name}.split", axis=-1, num_outputs=3)
        )
        heads = self.shape.heads_per_layer[layer - 1]
        # ONNX infers no types through another domain's operator, and what transforms a stage may need them.
        self.types.append(tensor(name, TensorProto.FLOAT, "batch", "length", heads * self.shape.head_size))
        return self.node(
            "MultiHeadAttention", [*split, "", "mask"], name, domain="com.microsoft", num_heads=heads
        )

    def _linear(self, x: str, name: str, source: str) -> str:
        return self._affine(x, name, self.weights(f"{source}.weight"), self.weights(f"{source}.bias"))

    def _ffn_linear(self, x: str, name: str, source: str) -> str:
        """A linear map of the FFN: one product, or two where it is factorised."""
        if not self.shape.ffn_rank:
            return self._linear(x, name, source)
        first = self.constant(f"{name}.first.weight", self.weights(f"{source}.first.weight").T)
        return self._linear(self.node("MatMul", [x, first], f"{name}.first"), name, f"{source}.second")

    def _affine(self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """``x weight^T + bias``, with the weight stored transposed, as the product wants it."""
        product = self.node("MatMul", [x, self.constant(f"{name}.weight", weight.T)], f"{name}.product")
        return self.node("Add", [product, self.constant(f"{name}.bias", bias)], name)

    def _layer_norm(self, x: str, name: str, source: str) -> str:
        scale, bias = (
            self.constant(f"{name}.{kind}", self.weights(f"{source}.{kind}")) for kind in ("weight", "bias")
        )
        return self.node("LayerNormalization", [x, scale, bias], name, epsilon=self.shape.layer_norm_eps)
