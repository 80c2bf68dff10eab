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
from pipeops.models.shape import ModelShape, tensor_shapes
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
