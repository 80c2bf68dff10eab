"""Running exported models on ONNX Runtime's CPU provider, without torch or transformers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto

from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.onnx.classify import batches, stacked
from pipeops.onnx.graphs import batch_graph, load
from pipeops.reading import reading
from pipeops.settings import Confidence

NEVER = float("inf")
"""A threshold that no confidence reaches, and no number of exits that agree."""
ALWAYS = 0.0
"""A threshold that all of them reach."""


class Answer(NamedTuple):
    """What a model with early exits says of one input."""

    logits: NDArray[np.float32]
    """Shape (1, num_labels)."""
    exit_layer: int
    """The layer that it left after, counted from 1."""


class Answers(NamedTuple):
    """What a model with early exits says of many inputs, in their order."""

    logits: NDArray[np.float32]
    """Shape (inputs, num_labels)."""
    exit_layers: NDArray[np.int64]
    """The layers that they left after, counted from 1, shape (inputs,)."""


class Profile(NamedTuple):
    """What every exit says of a batch."""

    logits: NDArray[np.float32]
    """Shape (batch, exits, num_labels)."""
    confidence: NDArray[np.float32]
    """How sure the exits are, 0 to 1, shape (batch, exits)."""


@dataclass(frozen=True)
class _Opened:
    """A graph, ready to run."""

    session: onnxruntime.InferenceSession
    shape: ModelShape

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What it says of itself."""
        return self.session.get_modelmeta().custom_metadata_map


@dataclass(frozen=True)
class EarlyExitModel(_Opened):
    """``model.onnx``: every input leaves at the first exit that is sure enough."""

    batch_tokens: int = 0
    """How many tokens of inputs it runs together; 0: it takes one input at a time, in the least time."""

    @classmethod
    def load(cls, path: Path, *, threads: int, cores: Sequence[int] = (), batch_tokens: int = 0) -> Self:
        """Load a model to run on ``threads`` threads.

        Args:
            path: the graph.
            batch_tokens: how many tokens are run together, padding included, such as
                :data:`pipeops.onnx.classify.BATCH_TOKENS`; 0: one input at a time, in the least time.
            threads: how many compute, the calling one among them.
            cores: one per thread; the threads of the session stay on all but the first, which is the
                caller's. Empty: anywhere.

        Raises:
            PipeOpsError: the file is absent, damaged, or not such a model, or a number of tokens is none.
        """
        if not isinstance(batch_tokens, int) or batch_tokens < 0:
            raise PipeOpsError(f"batch_tokens: {batch_tokens} is no number of tokens; give 0 or more")
        opened = _open(path, kind="early-exit", threads=threads, cores=cores, batch=batch_tokens > 0)
        return cls(*opened, batch_tokens)

    @property
    def confidence(self) -> Confidence:
        """What its ``thresholds`` are compared with; see :func:`pipeops.onnx.graphs.early_exit_graph`."""
        return self.metadata.get("pipeops.confidence", "max_probability")

    def run(self, input_ids: ArrayLike, attention_mask: ArrayLike, thresholds: ArrayLike = ()) -> Answer:
        """Classify one input.

        Args:
            input_ids: shape (1, length), padded on the right, if at all.
            attention_mask: same shape, 1 on tokens and 0 on padding.
            thresholds: one per exit before the last layer: the input leaves at the first exit whose
                confidence is at least its threshold; 0 always leaves, above 1 never does. Of a model with
                patience: how many exits in a row, this one included, must agree.

        Raises:
            PipeOpsError: more than one input, an input that is too long, a token that the model does not
                know, or the wrong number of thresholds.
        """
        logits, exit_layers = self.run_batch(input_ids, attention_mask, thresholds)
        if len(logits) != 1:
            raise PipeOpsError(f"batch of {len(logits)}: `run` takes one input, `run_batch` takes more")
        return Answer(logits, int(exit_layers[0]))

    def run_many(self, inputs: Sequence[ArrayLike], thresholds: ArrayLike = ()) -> Answers:
        """Classify inputs, those of like length together, if the model was loaded to do so.

        In fp32 answers are those of one input at a time. In int8 the inputs of a batch share the scale of
        every product, so an answer depends a little on the others.

        Args:
            inputs: token ids of each, shape (length,), without padding.
            thresholds: as :meth:`run` takes them.

        Raises:
            PipeOpsError: an input that is too long or has no tokens, a token that the model does not know, or
                the wrong number of thresholds.
        """
        self._thresholds(thresholds)
        rows = [_integers(ids) for ids in inputs]
        for number, row in enumerate(rows):
            if row.ndim != 1 or not row.size:
                raise PipeOpsError(f"inputs: number {number} is no list of token ids; give one or more")
        logits = np.zeros((len(rows), self.shape.num_labels), dtype=np.float32)
        exit_layers = np.zeros(len(rows), dtype=np.int64)
        for batch in batches([len(ids) for ids in rows], self.batch_tokens):
            ids, mask = stacked(
                [rows[index] for index in batch], [np.ones_like(rows[index]) for index in batch]
            )
            logits[batch], exit_layers[batch] = self.run_batch(ids, mask, thresholds)
        return Answers(logits, exit_layers)

    def run_batch(
        self, input_ids: ArrayLike, attention_mask: ArrayLike, thresholds: ArrayLike = ()
    ) -> Answers:
        """Classify a batch, (batch, length), as it is; :meth:`run` says the rest.

        Raises:
            PipeOpsError: inputs that are too long or of different lengths, a token that the model does not
                know, the wrong number of thresholds, or more than one input where the model was not loaded to
                take them.
        """
        tokens = _tokens(input_ids, attention_mask, self.shape)
        if (batch := len(tokens["input_ids"])) > 1 and not self.batch_tokens:
            raise PipeOpsError(
                f"batch of {batch}: the model was loaded for one input at a time; load it with `batch_tokens`"
            )
        given = self._thresholds(thresholds)
        return Answers(*self.session.run(None, tokens | {"thresholds": given} if given.size else tokens))

    def _thresholds(self, thresholds: ArrayLike) -> NDArray[np.float32]:
        wanted = len(self.shape.exit_layers) - 1
        try:
            given = np.asarray(thresholds, dtype=np.float32)
        except (TypeError, ValueError):
            raise PipeOpsError(f"thresholds: no list of numbers; give {wanted}") from None
        if given.shape != (wanted,):
            raise PipeOpsError(
                f"thresholds: {given.size} given, the model takes {wanted}, one per exit but the last"
            )
        if np.isnan(given).any():
            raise PipeOpsError(
                "thresholds: nan is none; give 0 to leave always, above 1 never to leave early"
            )
        return given


@dataclass(frozen=True)
class Profiler(_Opened):
    """``profile.onnx``: the answer of every exit, for a whole batch in one run."""

    @classmethod
    def load(cls, path: Path, *, threads: int) -> Self:
        """Load a profiling graph to run on ``threads`` threads.

        Raises:
            PipeOpsError: the file is absent, damaged, or not such a graph.
        """
        return cls(*_open(path, kind="straight", threads=threads))

    def run(self, input_ids: ArrayLike, attention_mask: ArrayLike) -> Profile:
        """Ask every exit about a batch: ``input_ids`` and ``attention_mask`` (0 on padding), (batch, length).

        Raises:
            PipeOpsError: inputs that are too long, or a token that the model does not know.
        """
        return Profile(*self.session.run(None, _tokens(input_ids, attention_mask, self.shape)))


def chosen_exits(confidence: NDArray[np.float32], thresholds: ArrayLike) -> NDArray[np.int64]:
    """Replay the model's rule: index of the first exit that is sure enough, else of the last.

    Args:
        confidence: as ``Profiler.run`` returns it, shape (batch, exits).
        thresholds: shape (exits - 1,).
    """
    sure = confidence[:, :-1] >= np.asarray(thresholds, dtype=np.float32)
    last = np.ones((len(confidence), 1), dtype=bool)
    return np.concatenate([sure, last], axis=1).argmax(axis=1)


def force_exit(layer: int, exit_layers: Sequence[int]) -> NDArray[np.float32]:
    """Thresholds that make every input leave after ``layer``, one of the model's ``exit_layers``."""
    thresholds = np.full(len(exit_layers), NEVER, dtype=np.float32)
    thresholds[exit_layers.index(layer)] = ALWAYS
    return thresholds[:-1]


def _tokens(
    input_ids: ArrayLike, attention_mask: ArrayLike, shape: ModelShape
) -> dict[str, NDArray[np.int64]]:
    """The inputs that both graphs share, checked."""
    ids, mask = _integers(input_ids), _integers(attention_mask)
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise PipeOpsError(
            f"input_ids {list(ids.shape)}, attention_mask {list(mask.shape)}: both must be (batch, length)"
        )
    if not ids.size:
        raise PipeOpsError("input_ids: no tokens; use the model's tokenizer, which adds special ones")
    if ids.shape[1] > shape.max_length:
        raise PipeOpsError(
            f"input_ids: {ids.shape[1]} tokens, the model takes at most {shape.max_length}; truncate"
        )
    # As unsigned numbers, negative ones are too large as well; the graph would count them from the end.
    if ids.view(np.uint64).max() >= shape.vocab_size:
        other = ids[(ids < 0) | (ids >= shape.vocab_size)][0]
        raise PipeOpsError(
            f"input_ids: token {other}, the model knows 0 to {shape.vocab_size - 1}; use its own tokenizer"
        )
    if (mask != 1).any() and not _is_of_padding(mask):
        raise PipeOpsError(
            "attention_mask: must be 1 on tokens and 0 on the padding behind them; pad inputs on the right"
        )
    return {"input_ids": ids, "attention_mask": mask}


def _integers(given: ArrayLike) -> NDArray[np.int64]:
    try:
        found = np.asarray(given)
    except ValueError:
        raise PipeOpsError(
            "input_ids: inputs of different lengths; pad them, with a mask of 0 there"
        ) from None
    if found.size and found.dtype.kind not in "iub":
        raise PipeOpsError("input_ids, attention_mask: must be integers; use the model's tokenizer")
    return found.astype(np.int64, copy=False)


def _is_of_padding(mask: NDArray[np.int64]) -> bool:
    """Whether every row is ones, one at least, and then zeros."""
    first, before, after = mask[:, 0], mask[:, :-1], mask[:, 1:]
    return bool((first == 1).all() and ((after == 0) | ((after == 1) & (before == 1))).all())


def _open(
    path: Path, *, kind: str, threads: int, cores: Sequence[int] = (), batch: bool = False
) -> tuple[onnxruntime.InferenceSession, ModelShape]:
    """Open a graph of the given kind, or what takes batches of it, and read the shape that it carries."""
    if not isinstance(threads, int) or threads < 1:
        raise PipeOpsError(f"threads: {threads} is no number of threads; give 1 or more")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads that go on spinning after a run slow down whoever runs next, such as another session measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Without it sums of int8 products overflow in 16 bits on x86 CPUs that have no VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # By default layers of 1 GiB together are refused; the file of a graph holds at most twice that.
    options.add_session_config_entry("session.function_expansion_byte_limit", str(1 << 31))
    if len(cores) > 1:
        affinities = ";".join(str(core + 1) for core in cores[1:])  # ONNX Runtime counts cores from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", affinities)
    again = "export it again"
    with reading(path, absent="export the model first", wrong="not a readable model", again=again):
        path.open("rb").close()
        session = onnxruntime.InferenceSession(
            _batch_graph(path).SerializeToString() if batch else path,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],  # the fused kernel is slower than its parts
        )
        metadata = session.get_modelmeta().custom_metadata_map
        if (found := metadata.get("pipeops.graph", "unknown")) != ("batch" if batch else kind):
            raise PipeOpsError(
                f"{path}: a graph of kind {found!r} where {kind!r} is needed; export the model again"
            )
        return session, ModelShape.from_config(json.loads(metadata["pipeops.shape"]))


def _batch_graph(path: Path) -> ModelProto:
    try:
        return batch_graph(load(path))
    except PipeOpsError as error:
        raise PipeOpsError(f"{path}: {error}") from None
