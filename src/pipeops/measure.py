"""Measuring one exported model: its accuracy-time tradeoff over the exit thresholds, on ONNX Runtime.

Every example's answer at every exit is taken once, and each threshold is replayed from that. The time of
leaving at an exit is measured next to a run of O, so that a drifting machine cancels out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.config import MeasuringSection
from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.provenance import provenance, write_json
from pipeops.runtime import EarlyExitModel, Profiler, chosen_exits, force_exit
from pipeops.tokenised import TokenisedSplit, load_tokenised

WARM_UP = 5
CHECK_REPEATS = 3
ROUNDING = 1e-5
"""Confidences closer to a threshold than this may fall on either side of it, padded or not (fp32)."""
_SAMPLE_SEED = 0


@dataclass(frozen=True)
class Answers:
    """What every exit says of every example."""

    confidence: NDArray[np.float32]
    """Largest class probability, shape (examples, exits)."""
    correct: NDArray[np.bool_]
    """Whether the answer is right, shape (examples, exits)."""


@dataclass(frozen=True)
class Costs:
    """Time of leaving at each exit, padded to ``max_length``."""

    relative: NDArray[np.float64]
    """Over O's time, shape (exits,)."""
    original_ms: float
    """O's time per example, milliseconds."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """How far the replay of one threshold is off from really running it."""

    threshold: float
    examples: int
    differing_exits: int
    """Examples that left elsewhere although their confidence was clear of the threshold: none is expected."""
    time_relative_replayed: float
    time_relative_run: float


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
        model: folder with the pipeline's ``model.onnx`` and ``profile.onnx``.
        original: folder with O's, of the same dataset and seed.
        data: tokenised validation examples.
        output: the CSV; one row per threshold, or a single one without a threshold for a single exit.
        settings: thresholds, threads, rounds.
        seed: for the record.

    Raises:
        PipeOpsError: a file cannot be read, or a real run leaves at other exits than the replay.
    """
    validation = load_tokenised(data)
    target = EarlyExitModel.load(model / "model.onnx", threads=settings.threads)
    baseline = EarlyExitModel.load(original / "model.onnx", threads=settings.threads)

    order = np.random.default_rng(_SAMPLE_SEED).permutation(len(validation)).tolist()
    answers = ask(Profiler.load(model / "profile.onnx", threads=settings.threads), validation)
    costs = exit_costs(target, baseline, [validation.padded(i) for i in order[: settings.timing_rounds]])
    flops = (
        np.array(target.shape.flops(validation.max_length)) / baseline.shape.flops(validation.max_length)[-1]
    )
    layers = np.array(target.shape.exit_layers)
    exits_before_last = len(layers) - 1
    thresholds = settings.thresholds if exits_before_last else [np.nan]
    rows = []
    for threshold in thresholds:
        chosen = chosen_exits(answers.confidence, [threshold] * exits_before_last)
        rows.append(
            {
                "inference": "",
                "threshold": threshold,
                "accuracy": answers.correct[np.arange(len(chosen)), chosen].mean(),
                "time_ms": costs.relative[chosen].mean() * costs.original_ms,
                "time_relative": costs.relative[chosen].mean(),
                "mean_exit_layer": layers[chosen].mean(),
                "flops_relative": flops[chosen].mean(),
            }
        )
    sample = order[: settings.check_examples]
    inputs = [validation.padded(i) for i in sample]
    checks = [
        check(target, baseline, inputs, answers.confidence[sample], costs.relative, threshold=threshold)
        for threshold in _spread(settings.thresholds, settings.check_thresholds)
        if exits_before_last
    ]
    _refuse_wrong_replay(checks, model)
    record = provenance(seed=seed, settings=settings.model_dump(), model=str(model), original=str(original))
    measured = {
        "rows": len(rows),
        "validation_examples": len(validation),
        "max_length": validation.max_length,
        "exit_layers": layers.tolist(),
        "original_ms": costs.original_ms,
        "exit_time_relative": costs.relative.tolist(),
        "exit_accuracy": answers.correct.mean(axis=0).tolist(),
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


def exit_costs(
    target: EarlyExitModel, baseline: EarlyExitModel, inputs: Sequence[tuple[NDArray, NDArray]]
) -> Costs:
    """Time of leaving at each exit over the time of O, the median over rounds.

    Args:
        target: the measured model.
        baseline: O.
        inputs: one per round: ``input_ids`` and ``attention_mask``, each (1, length). In a round every exit
            is taken once, each right after a run of O, so that no exit finds the caches warmed by another.
    """
    forced = [force_exit(layer, target.shape.exit_layers) for layer in target.shape.exit_layers]
    warm_up = [inputs[0]] * WARM_UP
    original_ms, ratios = [], []
    for number, (ids, mask) in enumerate([*warm_up, *inputs]):
        pairs = [
            (
                _milliseconds(lambda: baseline.run(ids, mask)),  # noqa: B023 - called at once
                _milliseconds(lambda: target.run(ids, mask, thresholds)),  # noqa: B023
            )
            for thresholds in forced
        ]
        if number >= WARM_UP:
            of_original, of_exits = np.array(pairs).T
            original_ms.append(of_original)
            ratios.append(of_exits / of_original)
    return Costs(relative=np.median(ratios, axis=0), original_ms=float(np.median(original_ms)))


def check(
    target: EarlyExitModel,
    baseline: EarlyExitModel,
    inputs: Sequence[tuple[NDArray, NDArray]],
    confidence: NDArray[np.float32],
    relative_costs: NDArray[np.float64],
    *,
    threshold: float,
) -> Check:
    """Really run one threshold, next to O, and compare exits and time with the replay.

    Args:
        target: the measured model.
        baseline: O.
        inputs: padded ``input_ids`` and ``attention_mask`` of each example.
        confidence: the same examples' confidences, shape (examples, exits).
        relative_costs: cost of leaving at each exit, over O's.
        threshold: used at every exit.
    """
    layers = target.shape.exit_layers
    thresholds = [threshold] * (len(layers) - 1)
    chosen = chosen_exits(confidence, thresholds)
    clear = (np.abs(confidence[:, :-1] - threshold) > ROUNDING).all(axis=1)
    differing, ratios = 0, []
    for (ids, mask), exit_index, is_clear in zip(inputs, chosen, clear, strict=True):
        answer = target.run(ids, mask, thresholds)
        differing += int(is_clear and answer.exit_layer != layers[exit_index])
        pairs = [
            (
                _milliseconds(lambda: target.run(ids, mask, thresholds)),  # noqa: B023 - called at once
                _milliseconds(lambda: baseline.run(ids, mask)),  # noqa: B023
            )
            for _ in range(CHECK_REPEATS)
        ]
        of_target, of_original = np.median(pairs, axis=0)
        ratios.append(of_target / of_original)
    return Check(
        threshold=threshold,
        examples=len(inputs),
        differing_exits=differing,
        time_relative_replayed=float(relative_costs[chosen].mean()),
        time_relative_run=float(np.mean(ratios)),
    )


def _milliseconds(run: Callable[[], object]) -> float:
    """How long a call takes, in milliseconds."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


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
