"""What replaying thresholds saves, against really running every threshold, on one trained model.

Both ways measure every threshold over the whole validation split, as it is and with L, Q and both, each time
next to a run of O. The layer runs of both are counted, and how far their relative times are apart.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import introduce
from rich.console import Console
from rich.table import Table

from pipeops.data.tokenised import TokenisedSplit, load_tokenised
from pipeops.errors import PipeOpsError
from pipeops.measuring.measure import ask
from pipeops.measuring.timing import exit_costs, input_lengths, inputs
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel, Profiler, chosen_exits
from pipeops.pipeline import INFERENCE
from pipeops.settings import MeasuringSection

Models = Mapping[str, EarlyExitModel]
"""By inference letters."""


@dataclass(frozen=True)
class Outcome:
    """One way of measuring all thresholds with some inference operators."""

    relative: np.ndarray
    """Time over O's per threshold, shape (thresholds,)."""
    exit_layer: np.ndarray
    """Mean exit layer per threshold."""


@dataclass(frozen=True)
class Effort:
    """What one way cost, all inference operators together."""

    layer_runs: int
    seconds: float


def main() -> None:
    args = arguments()
    models, profilers = load(args.model, threads=args.threads)
    baseline = EarlyExitModel.load(graph_path(args.original, "model", quantised=False), threads=args.threads)
    if not models[""].shape.has_exits:
        raise PipeOpsError(f"{args.model}: has no early exits; name a pipeline with E")
    split = load_tokenised(args.data)
    thresholds = MeasuringSection().thresholds
    replayed = replay(models, profilers, baseline, split, thresholds, rounds=args.rounds)
    run = really_run(models, baseline, split, thresholds)
    report(args, replayed, run, thresholds, len(split))


def load(folder: Path, *, threads: int) -> tuple[Models, dict[bool, Profiler]]:
    """The model by inference letters, and its profilers by whether they are quantised."""
    precisions = {
        quantised: (
            EarlyExitModel.load(graph_path(folder, "model", quantised=quantised), threads=threads),
            Profiler.load(graph_path(folder, "profile", quantised=quantised), threads=threads),
        )
        for quantised in (False, True)
    }
    models = {inference: precisions["Q" in inference][0] for inference in INFERENCE}
    return models, {quantised: profiler for quantised, (_, profiler) in precisions.items()}


def replay(
    models: Models,
    profilers: Mapping[bool, Profiler],
    baseline: EarlyExitModel,
    split: TokenisedSplit,
    thresholds: list[float],
    *,
    rounds: int,
) -> tuple[dict[str, Outcome], Effort]:
    """As `pipeops.measuring.measure` does it: a pass per precision, and the cost of each exit on a sample."""
    start, layers = time.perf_counter(), np.array(models[""].shape.exit_layers)
    confidence = {quantised: ask(profiler, split).confidence for quantised, profiler in profilers.items()}
    costs = exit_costs(models, baseline, split, rounds=rounds)
    outcomes = {}
    for inference in models:
        lengths = input_lengths(split, inference)
        chosen = [
            chosen_exits(confidence["Q" in inference], [threshold] * (len(layers) - 1))
            for threshold in thresholds
        ]
        outcomes[inference] = Outcome(
            relative=np.array([costs[inference].of(lengths, exits).mean() for exits in chosen]),
            exit_layer=np.array([layers[exits].mean() for exits in chosen]),
        )
    # Each exit is run twice in a round, once only to warm up, and O once.
    per_round = len(models) * (2 * int(layers.sum()) + len(layers) * baseline.shape.num_layers)
    layer_runs = len(profilers) * len(split) * models[""].shape.num_layers + rounds * per_round
    return outcomes, Effort(layer_runs, time.perf_counter() - start)


def really_run(
    models: Models, baseline: EarlyExitModel, split: TokenisedSplit, thresholds: list[float]
) -> tuple[dict[str, Outcome], Effort]:
    """Run every threshold on every example, next to O."""
    start, layer_runs, outcomes = time.perf_counter(), 0, {}
    for inference, target in models.items():
        times, exits = [], []
        for threshold in thresholds:
            wanted = [threshold] * (len(target.shape.exit_layers) - 1)
            rows: list[tuple[float, int, int]] = []
            for index in range(len(split)):
                padded, (ids, mask) = split.padded(index), inputs(split, index, inference)
                begun = time.perf_counter_ns()
                baseline.run(*padded)
                between = time.perf_counter_ns()
                answer = target.run(ids, mask, wanted)
                ended = time.perf_counter_ns()
                ratio = (ended - between) / (between - begun)
                rows.append((ratio, answer.exit_layer, ids.shape[1]))
            ratios, layers, lengths = np.array(rows).T
            # The median per exit and length, by how often it occurs: a mean would follow interruptions.
            groups, counts = np.unique([layers, lengths], axis=1, return_counts=True)
            medians = [np.median(ratios[(layers == k) & (lengths == n)]) for k, n in groups.T]
            times.append(np.average(medians, weights=counts))
            exits.append(layers.mean())
            layer_runs += int(layers.sum()) + len(split) * baseline.shape.num_layers
        outcomes[inference] = Outcome(np.array(times), np.array(exits))
    return outcomes, Effort(layer_runs, time.perf_counter() - start)


def report(
    args: argparse.Namespace,
    replayed: tuple[dict[str, Outcome], Effort],
    run: tuple[dict[str, Outcome], Effort],
    thresholds: list[float],
    examples: int,
) -> None:
    console = Console()
    introduce(console, threads=args.threads)
    console.print(f"{args.model}, {examples} examples")
    table = Table("run with", "threshold", "exit layer", "time / O, replayed", "time / O, run", "off by")
    summary: dict[str, object] = {
        "fewer_layer_runs": round(run[1].layer_runs / replayed[1].layer_runs, 1),
        "fewer_seconds": round(run[1].seconds / replayed[1].seconds, 1),
        "same_exits": True,
    }
    for inference, really in run[0].items():
        ours = replayed[0][inference]
        error = np.abs(ours.relative / really.relative - 1)
        rows = zip(thresholds, really.exit_layer, ours.relative, really.relative, error, strict=True)
        for threshold, layer, replay_time, run_time, off in rows:
            cells = [f"{threshold:g}", f"{layer:.2f}", f"{replay_time:.3f}", f"{run_time:.3f}", f"{off:.1%}"]
            table.add_row(inference or "-", *cells)
        table.add_section()
        summary[f"time_error_{inference or 'plain'}"] = {
            "median": round(float(np.median(error)), 4),
            "largest": round(float(error.max()), 4),
        }
        summary["same_exits"] &= bool(np.allclose(ours.exit_layer, really.exit_layer))
    console.print(table)
    console.print_json(json.dumps(summary))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = Path("results")
    onnx = results / "onnx/generated-sentiment"
    parser.add_argument(
        "--model", type=Path, default=onnx / "EP/seed1", help="folder of an exported pipeline"
    )
    parser.add_argument("--original", type=Path, default=onnx / "O/seed1", help="folder of the exported O")
    parser.add_argument("--data", type=Path, default=results / "data/generated-sentiment/validation.parquet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=MeasuringSection().timing_rounds)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except PipeOpsError as error:
        raise SystemExit(f"error: {error}") from None
