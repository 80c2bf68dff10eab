"""Measuring one exported model: its accuracy-time tradeoff over the exit thresholds, on ONNX Runtime.

The model is run as it is, with L, with Q and with both. Every example's answer at every exit is taken once,
and each threshold is replayed from that. The time of leaving at an exit is measured next to a run of O, so
that a drifting machine cancels out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.data.tokenised import TokenisedSplit, load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.hardware import INT8_WITHOUT_DOT_PRODUCTS, int8_kernels
from pipeops.measuring.records import COLUMNS, EXIT_COLUMNS, exits_path
from pipeops.measuring.timing import Check, Costs, check, exit_costs, input_lengths
from pipeops.models.shape import ModelShape
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel, Profiler, chosen_exits
from pipeops.pipeline import INFERENCE
from pipeops.provenance import provenance, write_json
from pipeops.settings import MeasuringSection

_SAMPLE_SEED = 0


@dataclass(frozen=True)
class Answers:
    """What every exit says of every example."""

    confidence: NDArray[np.float32]
    """How sure each exit is, shape (examples, exits)."""
    correct: NDArray[np.bool_]
    """Whether the answer is right, shape (examples, exits)."""


@dataclass(frozen=True)
class Variant:
    """A trained pipeline as it is run with some inference operators."""

    inference: str
    model: EarlyExitModel
    answers: Answers
    costs: Costs


def measure(
    model: Path,
    original: Path,
    data: Path,
    output: Path,
    *,
    settings: MeasuringSection,
    seed: int | None = None,
) -> None:
    """Measure one pipeline; write its CSV and, beside it, a JSON with provenance, costs and checks.

    Args:
        model: folder with the pipeline's exported graphs.
        original: folder with O's, of the same dataset and seed.
        data: tokenised validation examples.
        output: the CSV; for each of ``INFERENCE`` one row per threshold, or a single one without a threshold
            for a single exit. Beside it ``.exits.csv`` has a row for each of ``INFERENCE`` and exit.
        settings: thresholds, threads, rounds.
        seed: for the record.

    Raises:
        PipeOpsError: a file cannot be read, or a real run leaves at other exits than the replay.
    """
    validation = load_tokenised(data)
    kernels = _announced_kernels()
    baseline = EarlyExitModel.load(graph_path(original, "model", quantised=False), threads=settings.threads)
    variants = _variants(model, baseline, validation, settings)
    shape = variants[0].model.shape
    thresholds = settings.thresholds if shape.has_exits else [np.nan]
    rows, exit_rows = [], []
    for variant in variants:
        run_with = {
            "inference": variant.inference,
            "kernels": kernels if "Q" in variant.inference else "fp32",
        }
        points = [operating_point(variant, validation, t, original=baseline.shape) for t in thresholds]
        rows += [run_with | point for point in points]
        exit_rows += [run_with | point for point in exit_points(variant, validation, original=baseline.shape)]
    sample = np.random.default_rng(_SAMPLE_SEED).permutation(len(validation))[: settings.check_examples]
    checks = [
        check(
            variant.inference,
            variant.model,
            baseline,
            validation,
            variant.answers.confidence,
            variant.costs,
            examples=sample.tolist(),
            threshold=threshold,
        )
        for variant in variants
        for threshold in _spread(thresholds, settings.check_thresholds)
    ]
    _refuse_wrong_replay(checks, model)
    record = provenance(seed=seed, settings=settings.model_dump(), model=str(model), original=str(original))
    measured = {
        "rows": len(rows),
        "validation_examples": len(validation),
        "max_length": validation.max_length,
        "int8_kernels": kernels,
        "exit_layers": list(shape.exit_layers),
        "original_ms": variants[0].costs.original_ms,
        "timed_lengths": {v.inference: v.costs.lengths.tolist() for v in variants},
        "exit_time_relative": {v.inference: v.costs.relative.tolist() for v in variants},
        "checks": [asdict(one) for one in checks],
    }
    write_json(output.with_suffix(".json"), record | measured)
    _write_csv(exits_path(output), exit_rows, EXIT_COLUMNS)
    _write_csv(output, rows, COLUMNS)


def _variants(
    model: Path, baseline: EarlyExitModel, validation: TokenisedSplit, settings: MeasuringSection
) -> list[Variant]:
    """Load the model in both precisions, ask each about every example, and time all variants in turns."""
    models, answers = {}, {}
    for quantised in (False, True):
        path = graph_path(model, "model", quantised=quantised)
        models[quantised] = EarlyExitModel.load(path, threads=settings.threads)
        path = graph_path(model, "profile", quantised=quantised)
        answers[quantised] = ask(Profiler.load(path, threads=settings.threads), validation)
    targets = {inference: models["Q" in inference] for inference in INFERENCE}
    costs = exit_costs(targets, baseline, validation, rounds=settings.timing_rounds)
    return [Variant(i, targets[i], answers["Q" in i], costs[i]) for i in INFERENCE]


def ask(profiler: Profiler, split: TokenisedSplit) -> Answers:
    """Run every example once, by itself and unpadded, and note what every exit answers."""
    confidences, correct = [], []
    for ids, label in zip(split.input_ids, split.label_ids, strict=True):
        profile = profiler.run(ids[None], np.ones_like(ids)[None])
        confidences.append(profile.confidence[0])
        correct.append(profile.logits[0].argmax(axis=-1) == label)
    return Answers(np.stack(confidences), np.stack(correct))


def operating_point(
    variant: Variant, split: TokenisedSplit, threshold: float, *, original: ModelShape
) -> dict[str, float]:
    """Replay one threshold, used at every exit, over all examples of the split.

    Returns:
        The threshold, accuracy, and the mean over the examples of what they cost, in the columns of the
        CSV. Time and operations are also given over those of ``original``, O, for an input of ``max_length``
        tokens; parameters are all of the model's, and over O's.
    """
    shape = variant.model.shape
    layers = np.array(shape.exit_layers)
    chosen = chosen_exits(variant.answers.confidence, [threshold] * (len(layers) - 1))
    return _point(variant, split, chosen, original) | {
        "threshold": threshold,
        "mean_exit_layer": layers[chosen].mean(),
        "parameters": shape.parameters,
        "parameters_relative": shape.parameters / original.parameters,
    }


def exit_points(variant: Variant, split: TokenisedSplit, *, original: ModelShape) -> list[dict[str, float]]:
    """What it means that *every* example leaves at the same exit, exit by exit.

    Returns:
        Per exit the columns of its CSV. As :func:`operating_point`, but parameters are those of a model that
        ends at this exit.
    """
    shape = variant.model.shape
    return [
        _point(variant, split, np.full(len(split), index), original)
        | {
            "exit_layer": layer,
            "parameters": parameters,
            "parameters_relative": parameters / original.parameters,
        }
        for index, (layer, parameters) in enumerate(
            zip(shape.exit_layers, shape.exit_parameters, strict=True)
        )
    ]


def _point(
    variant: Variant, split: TokenisedSplit, chosen: NDArray[np.int64], original: ModelShape
) -> dict[str, float]:
    """Accuracy and mean cost when example i leaves at exit ``chosen[i]``."""
    lengths = input_lengths(split, variant.inference)
    by_length = {length: variant.model.shape.flops(length) for length in set(lengths.tolist())}
    flops = np.mean([by_length[length][i] for length, i in zip(lengths.tolist(), chosen, strict=True)])
    relative = variant.costs.of(lengths, chosen).mean()
    return {
        "accuracy": variant.answers.correct[np.arange(len(chosen)), chosen].mean(),
        "time_ms": relative * variant.costs.original_ms,
        "time_relative": relative,
        "flops": flops,
        "flops_relative": flops / original.flops(split.max_length)[-1],
    }


def _write_csv(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    with replaced(path) as temporary:
        pd.DataFrame(rows)[columns].to_csv(temporary, index=False)


def _announced_kernels() -> str:
    """Which kernels Q runs on, said in the log too."""
    kernels = int8_kernels()
    print(f"Q runs on {kernels} int8 kernels", flush=True)
    if kernels == INT8_WITHOUT_DOT_PRODUCTS:
        print("This CPU has no int8 dot products (VNNI or the like): expect Q to save less time.", flush=True)
    return kernels


def _spread(values: Sequence[float], count: int) -> list[float]:
    """``count`` of the values, evenly spread, the extremes left to last."""
    positions = (
        np.linspace(0, len(values) - 1, count + 2)[1:-1] if count < len(values) else range(len(values))
    )
    return [values[round(float(position))] for position in positions]


def _refuse_wrong_replay(checks: Sequence[Check], model: Path) -> None:
    wrong = [one for one in checks if one.differing_exits]
    if wrong:
        raise PipeOpsError(
            f"{model}: at threshold {wrong[0].threshold} {wrong[0].differing_exits} of {wrong[0].examples} "
            "examples left at another exit than replayed; export the model again"
        )
