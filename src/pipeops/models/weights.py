"""A checkpoint's weights as a file: which tensors a shape implies, and whether they are there. No torch."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from pipeops.errors import PipeOpsError
from pipeops.models.shape import ModelShape
from pipeops.reading import reading

WEIGHTS = "model.safetensors"
# A Protocol Buffers file ends at 2 GiB; the graph around the weights takes far less than 16 MiB.
MAX_WEIGHTS = 2**31 - 2**24
_AGAIN = "train the model again"

Weights = Callable[[str], NDArray[np.float32]]
"""Reads a tensor by its name."""


@contextmanager
def checked_weights(path: Path, shape: ModelShape) -> Iterator[Weights]:
    """Open ``model.safetensors`` and yield the function that reads a tensor of it.

    Raises:
        PipeOpsError: the file is absent, damaged or too large, or its tensors are not those of ``shape``.
    """
    with ExitStack() as opened:
        with reading(path, absent=_AGAIN, again=_AGAIN, ours=True):
            path.open("rb").close()
            if (size := path.stat().st_size) > MAX_WEIGHTS:
                raise PipeOpsError(
                    f"{path}: {size} bytes, but an ONNX file holds at most 2 GiB; use a smaller backbone"
                )
            file = opened.enter_context(safe_open(path, framework="numpy"))
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            _refuse_mismatch(
                path,
                expected={name: ("F32", dims) for name, dims in tensor_shapes(shape).items()},
                found={name: (part.get_dtype(), tuple(part.get_shape())) for name, part in found.items()},
            )
        yield partial(_finite_tensor, file, path)


def _finite_tensor(file: Any, path: Path, name: str) -> NDArray[np.float32]:
    with reading(path, again=_AGAIN):
        tensor = file.get_tensor(name)
    if not np.isfinite(tensor).all():
        raise PipeOpsError(f"{path}: {name}: holds numbers that are not finite; {_AGAIN}")
    return tensor


def _refuse_mismatch(path: Path, *, expected: dict[str, tuple], found: dict[str, tuple]) -> None:
    """Refuse the first tensor that is missing, unknown, or not of the type and shape expected."""
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, got = (
                f"{t[0]} {list(t[1])}" if t else "none" for t in (expected.get(name), found.get(name))
            )
            raise PipeOpsError(
                f"{path}: {name}: config.json implies {wanted}, found {got}; train the model again"
            )


def tensor_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the checkpoint of a model (all float32)."""
    hidden = shape.hidden_size
    embeddings, encoder = "backbone.embeddings", "backbone.encoder.layer"
    words = f"{embeddings}.word_embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        **_words(words, shape),
        f"{embeddings}.position_embeddings.weight": (shape.max_position_embeddings, hidden),
        f"{embeddings}.token_type_embeddings.weight": (shape.type_vocab_size, hidden),
        **_norm(f"{embeddings}.LayerNorm", hidden),
    }
    for i, (heads, ffn) in enumerate(zip(shape.heads_per_layer, shape.ffn_per_layer, strict=True)):
        attended = heads * shape.head_size
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{encoder}.{i}.attention.self.{part}", hidden, attended)
        shapes |= _linear(f"{encoder}.{i}.attention.output.dense", attended, hidden)
        shapes |= _norm(f"{encoder}.{i}.attention.output.LayerNorm", hidden)
        shapes |= _linear(f"{encoder}.{i}.intermediate.dense", hidden, ffn, rank=shape.ffn_rank)
        shapes |= _linear(f"{encoder}.{i}.output.dense", ffn, hidden, rank=shape.ffn_rank)
        shapes |= _norm(f"{encoder}.{i}.output.LayerNorm", hidden)
    for k in shape.exit_layers:
        shapes |= _linear(f"exits.{k}.dense", hidden, hidden)
        shapes |= _linear(f"exits.{k}.out_proj", hidden, shape.num_labels)
    return shapes


def _words(name: str, shape: ModelShape) -> dict[str, tuple[int, ...]]:
    if not shape.embedding_rank:
        return {f"{name}.weight": (shape.vocab_size, shape.hidden_size)}
    return {
        f"{name}.table.weight": (shape.vocab_size, shape.embedding_rank),
        f"{name}.projection.weight": (shape.hidden_size, shape.embedding_rank),
    }


def _linear(name: str, inputs: int, outputs: int, *, rank: int = 0) -> dict[str, tuple[int, ...]]:
    if rank:
        return {f"{name}.first.weight": (rank, inputs), **_linear(f"{name}.second", rank, outputs)}
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
