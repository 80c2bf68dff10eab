"""What replaying thresholds saves, against really running every threshold, on one trained model.

Both ways measure every threshold over the whole validation split, each time next to a run of O. The layer
runs of both are counted, and how far their relative times are apart.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeops.errors import PipeOpsError
from pipeops.measure import ask
from pipeops.provenance import cpu
from pipeops.runtime import EarlyExitModel, Profiler, chosen_exits
from pipeops.sections import MeasuringSection
from pipeops.timing import exit_costs, input_lengths
from pipeops.tokenised import TokenisedSplit, load_tokenised


@dataclass(frozen=True)
class Outcome:
    """One way of measuring all thresholds."""

    relative: np.ndarray
    """Time over O's per threshold, shape (thresholds,)."""
    exit_layer: np.ndarray
    """Mean exit layer per threshold."""
    layer_runs: int
    seconds: float


def main() -> None:
    args = arguments()
    target = EarlyExitModel.load(args.model / "model.onnx", threads=args.threads)
    baseline = EarlyExitModel.load(args.original / "model.onnx", threads=args.threads)
    profiler = Profiler.load(args.model / "profile.onnx", threads=args.threads)
    if not target.shape.has_exits:
        raise PipeOpsError(f"{args.model}: has no early exits; name a pipeline with E")
    split = load_tokenised(args.data)
    thresholds = MeasuringSection().thresholds
    replayed = replay(target, baseline, profiler, split, thresholds, rounds=args.rounds)
    run = really_run(target, baseline, split, thresholds)
    report(args, replayed, run, thresholds, len(split))


def replay(
    target: EarlyExitModel,
    baseline: EarlyExitModel,
    profiler: Profiler,
    split: TokenisedSplit,
    thresholds: list[float],
    *,
    rounds: int,
) -> Outcome:
    """As `pipeops.measure` does it: one pass over the split, and the cost of each exit on a sample."""
    start, layers = time.perf_counter(), np.array(target.shape.exit_layers)
    confidence = ask(profiler, split).confidence
    costs = exit_costs({"": target}, baseline, split, rounds=rounds)[""]
    lengths = input_lengths(split, "")
    chosen = [chosen_exits(confidence, [threshold] * (len(layers) - 1)) for threshold in thresholds]
    per_round = int(layers.sum()) + len(layers) * baseline.shape.num_layers
    return Outcome(
        relative=np.array([costs.of(lengths, exits).mean() for exits in chosen]),
        exit_layer=np.array([layers[exits].mean() for exits in chosen]),
        layer_runs=len(split) * target.shape.num_layers + rounds * per_round,
        seconds=time.perf_counter() - start,
    )


def really_run(
    target: EarlyExitModel, baseline: EarlyExitModel, split: TokenisedSplit, thresholds: list[float]
) -> Outcome:
    """Run every threshold on every example, next to O."""
    start, times, exits = time.perf_counter(), [], []
    for threshold in thresholds:
        wanted = [threshold] * (len(target.shape.exit_layers) - 1)
        rows: list[tuple[float, int]] = []
        for index in range(len(split)):
            ids, mask = split.padded(index)
            begun = time.perf_counter_ns()
            baseline.run(ids, mask)
            between = time.perf_counter_ns()
            answer = target.run(ids, mask, wanted)
            ended = time.perf_counter_ns()
            rows.append(((ended - between) / (between - begun), answer.exit_layer))
        ratios, layers = np.array(rows).T
        # The median per exit, weighted by how often it was taken: a mean would follow single interruptions.
        taken, counts = np.unique(layers, return_counts=True)
        times.append(np.average([np.median(ratios[layers == layer]) for layer in taken], weights=counts))
        exits.append(layers.mean())
    original_runs = len(thresholds) * len(split) * baseline.shape.num_layers
    return Outcome(
        relative=np.array(times),
        exit_layer=np.array(exits),
        layer_runs=round(sum(exits) * len(split)) + original_runs,
        seconds=time.perf_counter() - start,
    )


def report(
    args: argparse.Namespace, replayed: Outcome, run: Outcome, thresholds: list[float], examples: int
) -> None:
    console = Console()
    error = np.abs(replayed.relative / run.relative - 1)
    machine = cpu()
    console.print(f"{machine['model']}, {args.threads} threads; {args.model}, {examples} examples")
    table = Table("threshold", "exit layer", "time / O, replayed", "time / O, run", "off by")
    for row in zip(thresholds, run.exit_layer, replayed.relative, run.relative, error, strict=True):
        table.add_row(f"{row[0]:g}", f"{row[1]:.2f}", f"{row[2]:.3f}", f"{row[3]:.3f}", f"{row[4]:.1%}")
    console.print(table)
    same = np.allclose(replayed.exit_layer, run.exit_layer)
    summary = {
        "fewer_layer_runs": round(run.layer_runs / replayed.layer_runs, 1),
        "fewer_seconds": round(run.seconds / replayed.seconds, 1),
        "median_time_error": round(float(np.median(error)), 4),
        "largest_time_error": round(float(error.max()), 4),
        "same_exits": bool(same),
    }
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
