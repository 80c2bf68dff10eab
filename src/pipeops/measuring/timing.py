"""The time of leaving at each exit, and whether replaying it equals really running the model.

Every timed run stands next to a run of O, so that a drifting machine cancels out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeops.data.tokenised import TokenisedSplit
from pipeops.onnx.runtime import EarlyExitModel, chosen_exits, force_exit

WARM_UP = 5
CHECK_REPEATS = 3
LENGTHS = 5
"""Number of input lengths at which time is measured with L: quantiles of the validation split's lengths."""
ROUNDING = {False: 1e-5, True: 1e-2}
"""By whether the model is quantised: confidences closer to a threshold than this may fall on either side of
it, padded or not. In int8 a sum that is rounded otherwise may move an activation to its neighbour."""


@dataclass(frozen=True)
class Costs:
    """Time of leaving at each exit over O's, which is padded to ``max_length``."""

    lengths: NDArray[np.int64]
    """Input lengths in tokens that were measured, ascending, shape (lengths,)."""
    relative: NDArray[np.float64]
    """Time over O's, shape (lengths, exits)."""
    original_ms: float
    """O's time per example, milliseconds."""

    def of(self, lengths: NDArray[np.int64], exits: NDArray[np.int64]) -> NDArray[np.float64]:
        """Time over O's of each example, by its length and the index of its exit; linear between lengths."""
        by_exit = [np.interp(lengths, self.lengths, column) for column in self.relative.T]
        return np.stack(by_exit)[exits, np.arange(len(exits))]


@dataclass(frozen=True, kw_only=True)
class Check:
    """How far the replay of one threshold is off from really running it."""

    inference: str
    threshold: float | None
    examples: int
    differing_exits: int
    """Examples that left elsewhere although their confidence was clear of the threshold: none is expected."""
    time_relative_replayed: float
    time_relative_run: float


def exit_costs(
    variants: Mapping[str, EarlyExitModel], baseline: EarlyExitModel, split: TokenisedSplit, *, rounds: int
) -> dict[str, Costs]:
    """Time of leaving at each exit over the time of O, the median over rounds, for every variant.

    In a round every exit of every variant is timed once: it is run, then O, then it again, and the last two
    runs are timed. So both were run just before the other, as warm as a model in use, and no exit finds the
    caches warmed by another one. Rounds take turns at ``LENGTHS`` input lengths; padded, all are alike.

    Args:
        variants: one trained pipeline's model by inference letters; with L inputs are not padded.
        baseline: O, which runs each input padded.
        split: where inputs are taken from.
        rounds: how many.
    """
    examples = _of_spread_lengths(split, min(LENGTHS, rounds))
    warm_up = [examples[0]] * WARM_UP
    layers = next(iter(variants.values())).shape.exit_layers
    forced = [force_exit(layer, layers) for layer in layers]
    original_ms = []
    ratios: dict[str, dict[int, list[list[float]]]] = {inference: {} for inference in variants}
    for number, example in enumerate([*warm_up, *(examples[i % len(examples)] for i in range(rounds))]):
        padded = split.padded(example)
        for inference, model in variants.items():
            ids, mask = inputs(split, example, inference)
            pairs = []
            for thresholds in forced:
                model.run(ids, mask, thresholds)
                of_original = _milliseconds(lambda: baseline.run(*padded))  # noqa: B023 - called at once
                of_exit = _milliseconds(lambda: model.run(ids, mask, thresholds))  # noqa: B023
                pairs.append((of_original, of_exit))
            if number >= WARM_UP:
                originals, exits = np.array(pairs).T
                original_ms += originals.tolist()
                ratios[inference].setdefault(ids.shape[1], []).append((exits / originals).tolist())
    return {
        inference: Costs(
            lengths=np.array(sorted(by_length)),
            relative=np.array([np.median(by_length[length], axis=0) for length in sorted(by_length)]),
            original_ms=float(np.median(original_ms)),
        )
        for inference, by_length in ratios.items()
    }


def check(
    inference: str,
    target: EarlyExitModel,
    baseline: EarlyExitModel,
    split: TokenisedSplit,
    confidence: NDArray[np.float32],
    costs: Costs,
    *,
    examples: Sequence[int],
    threshold: float,
) -> Check:
    """Really run one threshold, next to O, and compare exits and time with the replay.

    Args:
        inference: letters of the inference operators.
        target: the measured model, quantised where ``inference`` has Q.
        baseline: O.
        split: the examples.
        confidence: every exit's for every example of the split, shape (examples, exits).
        costs: the target's.
        examples: positions in the split of those that are run.
        threshold: used at every exit.
    """
    layers = target.shape.exit_layers
    thresholds = [threshold] * (len(layers) - 1)
    chosen = chosen_exits(confidence[examples], thresholds)
    rounding = ROUNDING["Q" in inference]
    clear = ~(np.abs(confidence[examples, :-1] - threshold) <= rounding).any(axis=1)
    differing, ratios = 0, []
    for example, exit_index, is_clear in zip(examples, chosen, clear, strict=True):
        padded, (ids, mask) = split.padded(example), inputs(split, example, inference)
        answer = target.run(ids, mask, thresholds)
        differing += int(is_clear and answer.exit_layer != layers[exit_index])
        pairs = [
            (
                _milliseconds(lambda: target.run(ids, mask, thresholds)),  # noqa: B023 - called at once
                _milliseconds(lambda: baseline.run(*padded)),  # noqa: B023
            )
            for _ in range(CHECK_REPEATS)
        ]
        of_target, of_original = np.median(pairs, axis=0)
        ratios.append(of_target / of_original)
    replayed = costs.of(input_lengths(split, inference)[examples], chosen)
    return Check(
        inference=inference,
        threshold=None if np.isnan(threshold) else threshold,
        examples=len(examples),
        differing_exits=differing,
        time_relative_replayed=float(replayed.mean()),
        time_relative_run=float(np.mean(ratios)),
    )


def inputs(
    split: TokenisedSplit, example: int, inference: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and attention mask of one example, each (1, length): as long as it is with L, else padded."""
    if "L" not in inference:
        return split.padded(example)
    ids = split.input_ids[example][None]
    return ids, np.ones_like(ids)


def input_lengths(split: TokenisedSplit, inference: str) -> NDArray[np.int64]:
    """Length in tokens of every example as it is run."""
    if "L" not in inference:
        return np.full(len(split), split.max_length)
    return np.array([len(ids) for ids in split.input_ids])


def _of_spread_lengths(split: TokenisedSplit, count: int) -> list[int]:
    """One example for each of ``count`` quantiles of the lengths, the shortest and the longest among them."""
    by_length = np.argsort(input_lengths(split, "L"), kind="stable")
    return by_length[np.linspace(0, len(split) - 1, count).round().astype(int)].tolist()


def _milliseconds(run: Callable[[], object]) -> float:
    """How long a call takes, in milliseconds."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6
