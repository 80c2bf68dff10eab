"""Really running a model over some thresholds: same exits as the replay, and the time that its price says."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeops.data.tokenised import TokenisedSplit, load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.files import beside, replaced
from pipeops.measuring.contention import pinned, quietest_cores, wait_until_quiet
from pipeops.measuring.policies import scores
from pipeops.measuring.replay import Replay
from pipeops.measuring.rounds import Run, run_round
from pipeops.onnx.export import write
from pipeops.onnx.graphs import load, refuse_other_model, with_confidence
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel
from pipeops.pipeline import INFERENCE
from pipeops.progress import tracked
from pipeops.provenance import provenance, write_json
from pipeops.reading import reading
from pipeops.settings import CheckSection, Confidence, PricesSection

ROUNDING = {False: 1e-5, True: 1e-2}
"""By whether the model is quantised: confidences closer to a threshold than this may fall on either side of
it, padded or not. In int8 a sum that is rounded otherwise may move an activation to its neighbour."""
ROUNDS = 3
"""Rounds at most: the second and third follow only where the first is off by more than the tolerance."""
_SAMPLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Checked:
    """How far the replay of one threshold is off from really running it."""

    inference: str
    threshold: float
    """NaN for a single exit."""
    examples: int
    near_threshold: int
    """Examples whose confidence is within ``ROUNDING`` of the threshold: they may leave elsewhere."""
    differing_exits: int
    """Of the others, those that left elsewhere: none is expected."""
    time_relative_replayed: float
    time_relative_run: float


def check(
    replay: Replay,
    model: Path,
    original: Path,
    data: Path,
    output: Path,
    *,
    confidence: Confidence,
    thresholds: Sequence[float],
    settings: CheckSection,
    machine: PricesSection,
) -> None:
    """Run a sample of the examples end to end, next to O, and compare exits and time with the replay.

    Writes a CSV, a row per inference variant and threshold, and beside it a JSON.

    Args:
        replay: the model's answers and prices.
        model: folder of its exported graphs.
        original: folder of O's, of the same dataset and seed.
        data: tokenised validation examples, those that were evaluated.
        output: the CSV.
        confidence: what thresholds are compared with; graphs that decide otherwise are stitched anew.
        thresholds: those of the study; NaN alone for a single exit.
        settings: how much is run, and how far times may be off.
        machine: threads, and what counts as a quiet machine.

    Raises:
        PipeOpsError: an example left at another exit, times are off by more than the tolerance, the machine
            is too busy, or the data are not those that were evaluated.
    """
    split = load_tokenised(data)
    if [len(ids) for ids in split.input_ids] != replay.answers.lengths.tolist():
        raise PipeOpsError(f"{data}: not the examples that {replay.answers.path} answers; evaluate again")
    sample = np.random.default_rng(_SAMPLE_SEED).permutation(len(split))[: settings.examples].tolist()
    cores = quietest_cores(machine.threads)
    what = f"check of {model}"
    checked: list[Checked] = []
    with pinned(cores):
        original_model = EarlyExitModel.load(
            graph_path(original, "model", quantised=False), threads=machine.threads, cores=cores
        )
        models = {
            quantised: _deciding_by(
                confidence, graph_path(model, "model", quantised=quantised), machine.threads, cores
            )
            for quantised in (False, True)
        }
        _refuse_misfits(replay, model, models, original, original_model)
        waited = wait_until_quiet(others=machine.others, wait=machine.wait, what=what)
        for inference in tracked(INFERENCE, what, total=len(INFERENCE)):
            for attempt in range(1, ROUNDS + 1):
                rows = [
                    _run(
                        replay,
                        inference,
                        models["Q" in inference],
                        original_model,
                        split,
                        sample,
                        confidence,
                        t,
                        attempt,
                    )
                    for t in _spread(thresholds, settings.thresholds)
                ]
                if abs(_off(rows)) <= settings.tolerance:
                    break
                waited = wait_until_quiet(others=machine.others, wait=machine.wait, what=what, waited=waited)
            checked += rows
    _write(checked, output, replay, settings, machine, confidence)
    _refuse(checked, replay, model, settings.tolerance)


def _refuse_misfits(
    replay: Replay,
    model: Path,
    models: Mapping[bool, EarlyExitModel],
    original: Path,
    original_model: EarlyExitModel,
) -> None:
    """Refuse a model that is not the one that was evaluated, or an O that is not the one that was priced."""
    record = replay.answers.record
    known = {"seed": record["seed"], "labels": list(replay.answers.labels)}
    for one in models.values():
        if one.shape != replay.shape:
            raise PipeOpsError(f"{model}: is of another shape than {replay.answers.path}; evaluate it first")
        refuse_other_model(model, one.metadata, pipeline=record["pipeline"], **known)
    if original_model.shape != replay.prices.original:
        raise PipeOpsError(
            f"{original}: is of another shape than the O beside which {replay.prices.path} was priced; name "
            "the O of this study"
        )
    refuse_other_model(original, original_model.metadata, pipeline="O", **known)


def _deciding_by(confidence: Confidence, path: Path, threads: int, cores: Sequence[int]) -> EarlyExitModel:
    """Load a graph, stitched anew where it decides by another confidence."""
    model = EarlyExitModel.load(path, threads=threads, cores=cores)
    if model.confidence == confidence or not model.shape.has_exits:
        return model
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / path.name
        with reading(path, again="export it again"):
            write(with_confidence(load(path), confidence, path=path), changed)
        return EarlyExitModel.load(changed, threads=threads, cores=cores)


def _run(
    replay: Replay,
    inference: str,
    target: EarlyExitModel,
    original_model: EarlyExitModel,
    split: TokenisedSplit,
    sample: Sequence[int],
    confidence: Confidence,
    threshold: float,
    rounds: int,
) -> Checked:
    """Run one threshold on the sample, in this number of rounds."""
    layers = replay.shape.exit_layers
    chosen = replay.leaving(inference, confidence, threshold)
    near = near_threshold(
        replay.answers.of(inference), confidence, threshold, rounding=ROUNDING["Q" in inference]
    )
    costs, runs, differing = replay.variants[inference].time_relative, list[Run](), 0
    for example in sample:
        arguments = (*_inputs(split, example, inference), [threshold] * (len(layers) - 1))
        left = target.run(*arguments).exit_layer
        differing += int(not near[example] and left != layers[chosen[example]])
        runs.append(partial(target.run, *arguments))
    padded = split.padded(sample[0])
    taken = [run_round(runs, lambda: original_model.run(*padded)).relative for _ in range(rounds)]
    return Checked(
        inference=inference,
        threshold=threshold,
        examples=len(sample),
        near_threshold=int(near[sample].sum()),
        differing_exits=differing,
        time_relative_replayed=float(costs[sample, chosen[sample]].mean()),
        time_relative_run=float(np.median(taken, axis=0).mean()),
    )


def near_threshold(
    logits: NDArray[np.float32], confidence: Confidence, threshold: float, *, rounding: float
) -> NDArray[np.bool_]:
    """Which examples rounding may send to another exit, shape (examples,).

    With patience those are the examples whose two likeliest classes are about as likely at some exit.
    """
    if confidence != "patience":
        near = np.abs(scores(logits, confidence)[:, :-1] - threshold) <= rounding
        return np.any(near, axis=1)
    ordered = np.sort(logits, axis=-1)
    # Near a tie of two, a quarter of their difference is how far the probability is from one half.
    tied = (ordered[..., -1] - ordered[..., -2]) / 4 <= rounding
    return np.any(tied, axis=1)


def _inputs(
    split: TokenisedSplit, example: int, inference: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and attention mask of one example, each (1, length): as long as it is with L, else padded."""
    if "L" not in inference:
        return split.padded(example)
    ids = split.input_ids[example][None]
    return ids, np.ones_like(ids)


def _spread(values: Sequence[float], count: int) -> list[float]:
    """``count`` of the values, evenly spread, the extremes left to last."""
    if count >= len(values):
        return list(values)
    positions = np.linspace(0, len(values) - 1, count + 2)[1:-1]
    return [values[round(float(position))] for position in positions]


def _off(rows: Sequence[Checked]) -> float:
    """How far the time that was run is off what was replayed, as a part of it, over all thresholds."""
    run, replayed = (sum(getattr(row, f"time_relative_{how}") for row in rows) for how in ("run", "replayed"))
    return run / replayed - 1


def _write(
    checked: Sequence[Checked],
    output: Path,
    replay: Replay,
    settings: CheckSection,
    machine: PricesSection,
    confidence: Confidence,
) -> None:
    table = pd.DataFrame([asdict(row) for row in checked])
    with replaced(output) as path:
        table.to_csv(path, index=False)
    record = provenance(
        settings=settings.model_dump(), prices=machine.model_dump(), seed=replay.answers.record["seed"]
    )
    off = {inference: _off([row for row in checked if row.inference == inference]) for inference in INFERENCE}
    write_json(beside(output), record | {"rows": len(table), "confidence": confidence, "time_off": off})


def _refuse(checked: Sequence[Checked], replay: Replay, model: Path, tolerance: float) -> None:
    for row in checked:
        if row.differing_exits:
            raise PipeOpsError(
                f"{model}: at threshold {row.threshold:g} {row.differing_exits} of {row.examples} examples "
                f"left at another exit than {replay.answers.path} says; export and evaluate the model again"
            )
    for inference in INFERENCE:
        rows = [row for row in checked if row.inference == inference]
        if abs(off := _off(rows)) > tolerance:
            run_as = f"run with {inference}" if inference else "run as it is"
            raise PipeOpsError(
                f"{model}: {run_as}, its time is {100 * off:+.1f}% off what {replay.prices.path} says, more "
                f"than check.tolerance, {100 * tolerance:g}%; price again on a quiet machine"
            )
