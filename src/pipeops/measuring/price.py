"""What leaving at each exit costs, for every model of one shape: order, seed and weights do not change it.

Measured on graphs of that shape with random weights, so nothing need be trained.
"""

import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray
from onnx import ModelProto

from pipeops.errors import PipeOpsError
from pipeops.files import beside, disk_full_in_one_line
from pipeops.hardware import int8_kernels
from pipeops.integrity import sealed
from pipeops.measuring.contention import pinned, quietest_cores
from pipeops.measuring.prices import COLUMNS, HALVES
from pipeops.measuring.rounds import Round, Rounds, Run, quartiles, steady_rounds
from pipeops.models.shape import ModelShape, is_norm, tensor_shapes
from pipeops.models.weights import MAX_WEIGHTS, Weights
from pipeops.onnx.export import write
from pipeops.onnx.graphs import early_exit_graph
from pipeops.onnx.quantisation import quantise
from pipeops.onnx.runtime import EarlyExitModel, force_exit
from pipeops.onnx.stages import emit_stages
from pipeops.pipeline import INFERENCE
from pipeops.progress import progress
from pipeops.provenance import json_text, provenance
from pipeops.settings import PricesSection

_WEIGHT_SCALE = 0.02


@dataclass(frozen=True)
class Target:
    """One way of running the model whose time is measured."""

    inference: str
    length: int
    exit_layer: int
    run: Run


def price(
    shape: ModelShape,
    original: ModelShape,
    output: Path,
    *,
    lengths: NDArray[np.int64],
    max_length: int,
    settings: PricesSection,
    operators: str = "",
) -> None:
    """Measure what leaving at each exit costs; write the CSV and, beside it, a JSON of where it comes from.

    Args:
        shape: of the models that are priced.
        original: O's, on the same backbone.
        output: the CSV, with ``COLUMNS``.
        lengths: of the validation inputs in tokens; L is measured at their quantiles.
        max_length: what inputs are padded to without L.
        settings: threads, rounds, and what counts as a quiet machine.
        operators: of those models, for messages and for the record.

    Raises:
        PipeOpsError: the machine is too busy, times stay unsteady, or the inputs are too long for the model.
    """
    with progress(f"price {operators}", 1) as shown:
        table, record = measure_prices(
            shape,
            original,
            lengths=lengths,
            max_length=max_length,
            settings=settings,
            operators=operators,
            reached=shown.reach,
        )
    with sealed(output, beside(output)) as (path, details):
        table.to_csv(path, index=False)
        details.write_text(json_text(record))


def measure_prices(
    shape: ModelShape,
    original: ModelShape,
    *,
    lengths: NDArray[np.int64],
    max_length: int,
    settings: PricesSection,
    operators: str = "",
    reached: Callable[[float], None] = lambda _: None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Measure as :func:`price` does; return the rows of its CSV and the content of its JSON.

    ``reached`` is told which part is done, 0 to 1.
    """
    _refuse_lengths(lengths, max_length, shape)
    if (weights := max(shape.parameters, original.parameters)) > MAX_WEIGHTS // 4:
        raise PipeOpsError(
            f"{weights:,} weights, but an ONNX file holds at most 2 GiB; price a smaller encoder"
        )
    load = psutil.getloadavg()
    cores = quietest_cores(settings.threads)
    with tempfile.TemporaryDirectory() as folder, pinned(cores):
        with disk_full_in_one_line(Path(folder)):
            models = {
                quantised: random_model(shape, Path(folder) / "set.onnx", quantised, settings, cores)
                for quantised in (False, True)
            }
            original_model = random_model(original, Path(folder) / "O.onnx", False, settings, cores)
        padded = random_input(original, int(np.median(lengths)), max_length, seed=settings.seed)
        targets = targets_of(models, lengths, max_length, settings)
        found = steady_rounds(
            [target.run for target in targets],
            lambda: original_model.run(*padded),
            settings,
            what=f"price of {operators or 'this shape'}",
            reached=reached,
        )
    steady = found.steady(settings.unsteady)
    original_ms = np.concatenate([one.original for one in steady])
    table = _table(targets, steady, float(np.median(original_ms)))
    about = {
        "rows": len(table),
        "operators": operators,
        "shape": shape.to_config(),
        "original_shape": original.to_config(),
        "max_length": max_length,
        "int8_kernels": int8_kernels(),
        "original_ms": _statistics(original_ms),
        "original_ms_by_round": _statistics(np.array([np.median(one.original) for one in steady])),
        "contention": _contention(found, steady) | {"load_before": load, "cores": cores},
    }
    parameters = {"settings": settings.model_dump(), "examples": len(lengths)}
    return table, provenance(**parameters) | about


def random_weights(shape: ModelShape, *, seed: int) -> Weights:
    """Weights as before training: normal with a deviation of 0.02, norms near 1. Same seed, same weights."""
    shapes = tensor_shapes(shape)

    def read(name: str) -> NDArray[np.float32]:
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values = _WEIGHT_SCALE * random.standard_normal(shapes[name], dtype=np.float32)
        return values + np.float32(is_norm(name, shapes[name]))

    return read


def random_graph(shape: ModelShape, *, quantised: bool, seed: int) -> ModelProto:
    """A graph with early exits and random weights."""
    stages = emit_stages(shape, random_weights(shape, seed=seed))
    return early_exit_graph([quantise(stage) for stage in stages] if quantised else stages, shape)


def random_input(
    shape: ModelShape, length: int, width: int, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask of one input of ``length`` random tokens, padded to ``width``, each (1, width)."""
    ids = np.random.default_rng(seed).integers(shape.vocab_size, size=(1, width))
    mask = (np.arange(width) < length)[None]
    return np.where(mask, ids, shape.pad_token_id), mask.astype(np.int64)


def spread_lengths(lengths: NDArray[np.int64], count: int) -> list[int]:
    """``count`` quantiles of the lengths, the shortest and the longest among them, each once, ascending."""
    positions = np.linspace(0, len(lengths) - 1, count).round().astype(int)
    return np.unique(np.sort(lengths)[positions]).tolist()


def _refuse_lengths(lengths: NDArray[np.int64], max_length: int, shape: ModelShape) -> None:
    if (longest := int(lengths.max())) > max_length:
        raise PipeOpsError(
            f"lengths: an input of {longest} tokens is longer than max_length, {max_length}; raise it"
        )
    if max_length > shape.max_length:
        raise PipeOpsError(
            f"max_length: {max_length}, but the backbone takes at most {shape.max_length} tokens; lower it"
        )


def random_model(
    shape: ModelShape, path: Path, quantised: bool, settings: PricesSection, cores: Sequence[int]
) -> EarlyExitModel:
    """Load a graph of this shape with random weights, by way of the file ``path``."""
    write(random_graph(shape, quantised=quantised, seed=settings.seed), path)
    return EarlyExitModel.load(path, threads=settings.threads, cores=cores)


def targets_of(
    models: Mapping[bool, EarlyExitModel],
    lengths: NDArray[np.int64],
    max_length: int,
    settings: PricesSection,
) -> list[Target]:
    """Every exit of every inference variant at every length that is measured, in the order of the CSV.

    Args:
        models: the fp32 one, and by True the int8 one.
        lengths: of the validation inputs in tokens.
        max_length: what inputs are padded to without L.
        settings: how many lengths, and the seed of the inputs.
    """
    typical, targets = int(np.median(lengths)), []
    for inference in INFERENCE:
        model = models["Q" in inference]
        for width in spread_lengths(lengths, settings.lengths) if "L" in inference else [max_length]:
            length = width if "L" in inference else typical
            inputs = random_input(model.shape, length, width, seed=settings.seed)
            for layer in model.shape.exit_layers:
                arguments = (*inputs, force_exit(layer, model.shape.exit_layers))
                targets.append(Target(inference, width, layer, partial(model.run, *arguments)))
    return targets


def _table(targets: Sequence[Target], rounds: Sequence[Round], original_ms: float) -> pd.DataFrame:
    low, median, high = quartiles(rounds)
    rows = [(target.inference, target.length, target.exit_layer) for target in targets]
    table = pd.DataFrame(rows, columns=COLUMNS[:3])
    numbers = {"time_ms": median * original_ms, "time_relative": median, "iqr": high - low}
    middle = len(rounds) // 2
    for column, half in zip(HALVES, (rounds[:middle], rounds[middle:]), strict=True):
        numbers[column] = quartiles(half)[1]
    return table.assign(**numbers, rounds=len(rounds))[COLUMNS]


def _statistics(values: NDArray[np.float64]) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": median, "iqr": high - low, "least": values.min(), "most": values.max()}


def _contention(found: Rounds, steady: Sequence[Round]) -> dict[str, Any]:
    """What else ran while measuring, as the JSON has it."""
    seconds = np.array([seconds for seconds, _ in found.others])
    others, stolen = (
        float(np.average([getattr(usage, kind) for _, usage in found.others], weights=seconds))
        for kind in ("others", "stolen")
    )
    return {
        "others_cores": others,
        "stolen_cores": stolen,
        "seconds": float(seconds.sum()),
        "waited_seconds": found.waited,
        "rounds": len(steady),
        "rounds_others_busy": len(found.busy),
        "rounds_unsteady": len(found.every) - len(steady),
    }
