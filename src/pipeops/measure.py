"""Measuring one exported model: its accuracy-time tradeoff over the exit thresholds, on ONNX Runtime.

The model is run as it is, with L, with Q and with both. Every example's answer at every exit is taken once,
and each threshold is replayed from that. The time of leaving at an exit is measured next to a run of O, so
that a drifting machine cancels out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.provenance import INT8_WITHOUT_DOT_PRODUCTS, int8_kernels, provenance, write_json
from pipeops.runtime import EarlyExitModel, Profiler, chosen_exits, graph_path
from pipeops.sections import MeasuringSection
from pipeops.shape import ModelShape
from pipeops.timing import Check, Costs, check, exit_costs, input_lengths
from pipeops.tokenised import TokenisedSplit, load_tokenised

INFERENCE = ("", "L", "Q", "LQ")
"""The inference operators that every model is measured with: none, either, both."""
_SAMPLE_SEED = 0


@dataclass(frozen=True)
class Answers:
    """What every exit says of every example."""

    confidence: NDArray[np.float32]
    """Largest class probability, shape (examples, exits)."""
    correct: NDArray[np.bool_]
    """Whether the answer is right, shape (examples, exits)."""


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
            for a single exit.
        settings: thresholds, threads, rounds.
        seed: for the record.

    Raises:
        PipeOpsError: a file cannot be read, or a real run leaves at other exits than the replay.
    """
    validation = load_tokenised(data)
    kernels = _announced_kernels()
    baseline = EarlyExitModel.load(graph_path(original, "model", quantised=False), threads=settings.threads)
    models, answers = {}, {}
    for quantised in (False, True):
        path = graph_path(model, "model", quantised=quantised)
        models[quantised] = EarlyExitModel.load(path, threads=settings.threads)
        path = graph_path(model, "profile", quantised=quantised)
        answers[quantised] = ask(Profiler.load(path, threads=settings.threads), validation)
    targets = {inference: models["Q" in inference] for inference in INFERENCE}
    costs = exit_costs(targets, baseline, validation, rounds=settings.timing_rounds)

    shape = models[False].shape
    thresholds = settings.thresholds if shape.has_exits else [np.nan]
    original_flops = baseline.shape.flops(validation.max_length)[-1]
    rows = [
        {"inference": inference, "threshold": threshold}
        | operating_point(
            answers["Q" in inference],
            costs[inference],
            input_lengths(validation, inference),
            shape,
            threshold=threshold,
            original_flops=original_flops,
        )
        | {"kernels": kernels if "Q" in inference else "fp32"}
        for inference in INFERENCE
        for threshold in thresholds
    ]
    sample = np.random.default_rng(_SAMPLE_SEED).permutation(len(validation))[: settings.check_examples]
    checks = [
        check(
            inference,
            target,
            baseline,
            validation,
            answers["Q" in inference].confidence,
            costs[inference],
            examples=sample.tolist(),
            threshold=threshold,
        )
        for inference, target in targets.items()
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
        "original_ms": costs[""].original_ms,
        "timed_lengths": {inference: c.lengths.tolist() for inference, c in costs.items()},
        "exit_time_relative": {inference: c.relative.tolist() for inference, c in costs.items()},
        "exit_accuracy": {
            "int8" if quantised else "fp32": a.correct.mean(axis=0).tolist()
            for quantised, a in answers.items()
        },
        "checks": [asdict(one) for one in checks],
    }
    write_json(output.with_suffix(".json"), record | measured)
    with replaced(output) as path:
        pd.DataFrame(rows).to_csv(path, index=False)


def ask(profiler: Profiler, split: TokenisedSplit) -> Answers:
    """Run every example once, by itself and unpadded, and note what every exit answers."""
    confidences, correct = [], []
    for ids, label in zip(split.input_ids, split.label_ids, strict=True):
        profile = profiler.run(ids[None], np.ones_like(ids)[None])
        confidences.append(profile.confidence[0])
        correct.append(profile.logits[0].argmax(axis=-1) == label)
    return Answers(np.stack(confidences), np.stack(correct))


def operating_point(
    answers: Answers,
    costs: Costs,
    lengths: NDArray[np.int64],
    shape: ModelShape,
    *,
    threshold: float,
    original_flops: int,
) -> dict[str, float]:
    """Replay one threshold: accuracy and mean cost over all examples.

    Args:
        answers: every exit's of every example.
        costs: the model's.
        lengths: each example's input length as the model is run.
        shape: the model's.
        threshold: used at every exit.
        original_flops: O's for one input of ``max_length`` tokens.
    """
    layers = np.array(shape.exit_layers)
    chosen = chosen_exits(answers.confidence, [threshold] * (len(layers) - 1))
    by_length = {int(length): shape.flops(int(length)) for length in np.unique(lengths)}
    flops = [by_length[int(length)][exit_index] for length, exit_index in zip(lengths, chosen, strict=True)]
    relative = costs.of(lengths, chosen).mean()
    return {
        "accuracy": answers.correct[np.arange(len(chosen)), chosen].mean(),
        "time_ms": relative * costs.original_ms,
        "time_relative": relative,
        "mean_exit_layer": layers[chosen].mean(),
        "flops_relative": np.mean(flops) / original_flops,
    }


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
