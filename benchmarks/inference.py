"""What early exiting and int8 cost and save on a RoBERTa-base with random weights.

Every round runs each graph once, in a turning order, so that a drifting machine drifts for all of them; a
ratio is the median of the rounds' ratios. The tables are judged by the limits below, but this only reports.
With ``--glue`` and ``--tokenizer`` the times of Table 2 of Xin et al. 2022 follow (``table2.py``).
"""

import argparse
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from common import Runs, export_random, interleaved, introduce, positive, random_weights, roberta
from rich.console import Console
from rich.table import Table
from table2 import print_table2

from pipeops.models.shape import ModelShape
from pipeops.onnx.export import write
from pipeops.onnx.graphs import straight_graph
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel, Profiler, force_exit
from pipeops.onnx.stages import emit_stages

EXPORT_LIMIT_S = 60.0
SIZE_LIMIT = 1.05
INT8_SIZE_LIMIT = 0.3


@dataclass(frozen=True)
class Comparison:
    """Two runs; the ratio is the first's time over the second's."""

    run: str
    base: str
    at_most: float | None = None
    at_least: float | None = None

    def verdict(self, ratio: float) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:.2f} {'ok' if ratio <= self.at_most else 'over'}"
        if self.at_least is not None:
            return f">= {self.at_least:.2f} {'ok' if ratio >= self.at_least else 'under'}"
        return ""


COMPARISONS = (
    Comparison("fp32 full depth", "fp32 every exit", at_most=1.03),  # they do the same work
    Comparison("fp32 full depth", "fp32 one exit"),
    Comparison("fp32 layer 1", "fp32 one layer", at_most=1.30),  # the embeddings, one layer and its exit
    Comparison("int8 full depth", "int8 every exit", at_most=1.03),
    Comparison("fp32 every exit", "int8 every exit", at_least=2.5),
    Comparison("fp32 full depth", "int8 full depth", at_least=2.5),
    Comparison("fp32 layer 1", "int8 layer 1"),
)


def main() -> None:
    args = arguments()
    shape = roberta(args.layers, args.hidden, args.vocab)
    console = Console()
    introduce(console, threads=args.threads)
    console.print(
        f"RoBERTa, {args.layers} layers, hidden {args.hidden}, random weights; {args.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print(export_table(folder, export_random(shape, folder)))
        write_straight_graphs(shape, folder)
        console.print(time_table(folder, shape, args))
    if args.glue and args.tokenizer:
        print_table2(console, Path(args.glue), Path(args.tokenizer), threads=args.threads)
    else:
        console.print("Table 2 skipped: give --glue and --tokenizer, or set PIPEOPS_GLUE and PIPEOPS_MINILM")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768, help="a multiple of 64, the size of a head")
    parser.add_argument("--vocab", type=int, default=50265)
    parser.add_argument(
        "--lengths", type=positive, nargs="+", default=[32, 128, 512], help="input lengths in tokens"
    )
    parser.add_argument("--rounds", type=positive, default=40)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--glue", default=os.environ.get("PIPEOPS_GLUE"), help="folder of GLUE, for Table 2")
    parser.add_argument(
        "--tokenizer", default=os.environ.get("PIPEOPS_MINILM"), help="folder of a tokenizer, for Table 2"
    )
    return parser.parse_args()


def write_straight_graphs(shape: ModelShape, folder: Path) -> None:
    """Write what early exits are compared with: the model without them, and its first layer alone."""
    weights = random_weights(shape)
    single_exit = replace(shape, exit_layers=(shape.num_layers,))
    one_layer = replace(
        shape,
        heads_per_layer=shape.heads_per_layer[:1],
        ffn_per_layer=shape.ffn_per_layer[:1],
        exit_layers=(1,),
    )
    for name, variant in (("single-exit", single_exit), ("one-layer", one_layer)):
        write(straight_graph(emit_stages(variant, weights.__getitem__), variant), folder / f"{name}.onnx")


def export_table(folder: Path, seconds: float) -> Table:
    size = {path.name: path.stat().st_size for path in folder.glob("*.onnx")}
    rows = [
        ("all four graphs, s", seconds, EXPORT_LIMIT_S),
        ("model.onnx / profile.onnx, bytes", size["model.onnx"] / size["profile.onnx"], SIZE_LIMIT),
        (
            "model-int8.onnx / model.onnx, bytes",
            size["model-int8.onnx"] / size["model.onnx"],
            INT8_SIZE_LIMIT,
        ),
    ]
    table = Table("export", "measured", "limit", "verdict")
    for name, value, limit in rows:
        table.add_row(name, f"{value:.4g}", f"{limit:g}", "ok" if value <= limit else "over")
    return table


def time_table(folder: Path, shape: ModelShape, args: argparse.Namespace) -> Table:
    table = Table("tokens", "run", "ms", "base", "ms", "run / base", "limit")
    graphs = load(folder, threads=args.threads)
    for length in args.lengths:
        times = interleaved(runs(graphs, shape, length), args.rounds)
        for comparison in COMPARISONS:
            run, base = times[comparison.run], times[comparison.base]
            ratio = float(np.median(run / base))
            run_ms, base_ms = (f"{np.median(seconds) * 1e3:.2f}" for seconds in (run, base))
            cells = [comparison.run, run_ms, comparison.base, base_ms, f"{ratio:.3f}"]
            table.add_row(str(length), *cells, comparison.verdict(ratio))
        table.add_section()
    return table


def load(folder: Path, *, threads: int) -> dict[str, EarlyExitModel | Profiler]:
    """The graphs by name: early exits and every exit in both precisions, and those to compare with."""
    graphs: dict[str, EarlyExitModel | Profiler] = {
        f"fp32 {name.replace('-', ' ')}": Profiler.load(folder / f"{name}.onnx", threads=threads)
        for name in ("single-exit", "one-layer")
    }
    for precision, quantised in (("fp32", False), ("int8", True)):
        model, profile = (graph_path(folder, kind, quantised=quantised) for kind in ("model", "profile"))
        graphs[f"{precision} early exit"] = EarlyExitModel.load(model, threads=threads)
        graphs[f"{precision} every exit"] = Profiler.load(profile, threads=threads)
    return graphs


def runs(graphs: dict, shape: ModelShape, length: int) -> Runs:
    """What is timed, each on the same random input."""
    ids = np.random.default_rng(length).integers(3, shape.vocab_size, (1, length))
    mask = np.ones_like(ids)
    last, first = (force_exit(layer, shape.exit_layers) for layer in (shape.num_layers, 1))
    found: Runs = {
        "fp32 one exit": lambda: graphs["fp32 single exit"].run(ids, mask),
        "fp32 one layer": lambda: graphs["fp32 one layer"].run(ids, mask),
    }
    for precision in ("fp32", "int8"):
        early, every = graphs[f"{precision} early exit"], graphs[f"{precision} every exit"]
        found |= {
            f"{precision} every exit": lambda every=every: every.run(ids, mask),
            f"{precision} full depth": lambda early=early: early.run(ids, mask, last),
            f"{precision} layer 1": lambda early=early: early.run(ids, mask, first),
        }
    return found


if __name__ == "__main__":
    main()
