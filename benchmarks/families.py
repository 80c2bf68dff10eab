"""What inference costs by family: the shapes of RoBERTa-base, MPNet-base and ModernBERT-base, random weights.

    python benchmarks/families.py --output families             # 32, 128, 512 and 2,048 tokens
    python benchmarks/families.py --output families --parts     # prints again what was measured
    python benchmarks/families.py --output families --layers 3 --hidden 64 --vocab 100 --lengths 8 --rounds 3

Exported graphs, straight through and with early exits forced at layer 1 and at full depth, in fp32 and int8,
stand beside the same model in PyTorch, all its exits computed. Every round runs each once, in a turning
order; a ratio is the median of the rounds' ratios. A shape is given as many positions as the longest length
needs.

Graphs are made once and kept in the output folder. What was measured is kept in families.json after every
length. A later call measures what it names anew.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import Runs, export_random, interleaved, introduce, positive
from rich.console import Console

from pipeops.files import temporary_folder
from pipeops.models.architectures import KNOWN
from pipeops.models.families.pre_norm import PreNorm
from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.models.shape import ModelShape
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel, Profiler, force_exit
from pipeops.provenance import provenance, write_json
from pipeops.text import markdown_table

SHAPES = {
    "RoBERTa": "FacebookAI/roberta-base",
    "MPNet": "microsoft/mpnet-base",
    "ModernBERT": "answerdotai/ModernBERT-base",
}
HEAD_SIZE = 64
PARTS = ("files", "times")
BASE = "PyTorch"
"""What times are divided by."""
PAUSE = 0.01
"""Seconds after each run, in which its threads stop spinning."""
Times = dict[str, dict[str, dict[str, list[float]]]]
"""Seconds of each round by family, length and run."""
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    kept = args.output / "families.json"
    times: Times = json.loads(kept.read_text())["times"] if kept.exists() else {}
    if args.parts:
        introduce(console, threads=args.threads)
    for family in args.families if args.parts else ():
        shape = shape_of(family, args)
        folder = made(shape, args.output / family)
        if "times" not in args.parts:
            continue
        graphs, model = opened(shape, folder, args.threads)
        for length in args.lengths:
            with torch.inference_mode():
                taken = interleaved(
                    runs(graphs, model, shape, length), args.rounds, seconds=args.seconds, pause=PAUSE
                )
            times.setdefault(family, {})[str(length)] = {name: list(found) for name, found in taken.items()}
            write_json(kept, {"times": times, "provenance": provenance(threads=args.threads)})
            console.print(f"timed: {family}, {length} tokens, {len(taken[BASE])} rounds")
    console.print(markdown_table(["family", "run", *lengths_of(times)], list(rows(times))))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for graphs and times")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="none: print what is kept")
    parser.add_argument("--families", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--layers", type=int, help="of each encoder; its own number unless given")
    parser.add_argument("--hidden", type=int, default=768, help=f"a multiple of {HEAD_SIZE}, a head's size")
    parser.add_argument("--vocab", type=int, help="its own number unless given")
    parser.add_argument("--lengths", type=positive, nargs="+", default=[32, 128, 512, 2048], help="in tokens")
    parser.add_argument("--rounds", type=positive, default=20)
    parser.add_argument(
        "--seconds", type=float, default=60, help="a length takes no more, once it has three rounds"
    )
    parser.add_argument("--threads", type=positive, default=2)
    return parser.parse_args()


def shape_of(family: str, args: argparse.Namespace) -> ModelShape:
    """The family's shape in the sizes asked for, with an exit after every layer."""
    base = KNOWN[SHAPES[family]]
    layers = args.layers or base.layers
    own = {"layout": PreNorm.in_rhythm(layers)} if isinstance(base.layout, PreNorm) else {}
    scaled = replace(
        base,
        layers=layers,
        hidden_size=args.hidden,
        heads=args.hidden // HEAD_SIZE,
        ffn_size=base.ffn_size * args.hidden // base.hidden_size,
        vocab_size=args.vocab or base.vocab_size,
        position_rows=max(base.position_rows, max(args.lengths) + 2),
        pad_token_id=1,
        **own,
    )
    return scaled.shape(num_labels=2, sep_token_id=2).with_all_exits()


def made(shape: ModelShape, folder: Path) -> Path:
    """Export a model of random weights to the folder, unless it holds one of this shape."""
    if not (folder.exists() and ModelShape.from_checkpoint(folder / "checkpoint") == shape):
        shutil.rmtree(folder, ignore_errors=True)
        with temporary_folder(folder.parent) as temporary:
            export_random(shape, temporary)
            temporary.rename(folder)
    return folder


def opened(
    shape: ModelShape, folder: Path, threads: int
) -> tuple[dict[str, tuple[EarlyExitModel, Profiler]], MultiExitForSequenceClassification]:
    """The graphs of both precisions, and a model of this shape in PyTorch."""
    graphs = {
        precision: (
            EarlyExitModel.load(graph_path(folder, "model", quantised=quantised), threads=threads),
            Profiler.load(graph_path(folder, "profile", quantised=quantised), threads=threads),
        )
        for precision, quantised in (("fp32", False), ("int8", True))
    }
    return graphs, MultiExitForSequenceClassification(MultiExitConfig.from_shape(shape)).eval()


def runs(
    graphs: dict[str, tuple[EarlyExitModel, Profiler]],
    model: MultiExitForSequenceClassification,
    shape: ModelShape,
    length: int,
) -> Runs:
    """What is run at one length: an input without padding."""
    ids = np.random.default_rng(0).integers(3, shape.vocab_size, size=(1, length))
    mask = np.ones_like(ids)
    tokens = torch.from_numpy(ids), torch.from_numpy(mask)
    found: Runs = {BASE: lambda: model(*tokens)}
    for precision, (early, straight) in graphs.items():
        found[f"{precision} straight"] = lambda straight=straight: straight.run(ids, mask)
        for name, layer in (("full depth", shape.num_layers), ("layer 1", 1)):
            thresholds = force_exit(layer, shape.exit_layers)
            found[f"{precision} {name}"] = lambda early=early, thresholds=thresholds: early.run(
                ids, mask, thresholds
            )
    return found


def lengths_of(times: Times) -> list[str]:
    """The lengths at which any family was measured, shortest first."""
    return sorted({length for found in times.values() for length in found}, key=int)


def rows(times: Times) -> Iterator[list[str]]:
    """Milliseconds of each family and run at every length, and their ratio to PyTorch's."""
    for family, found in times.items():
        for name in next(iter(found.values())):
            yield [family, name, *(cell(found.get(length, {}), name) for length in lengths_of(times))]


def cell(taken: dict[str, list[float]], name: str) -> str:
    if name not in taken:
        return "-"
    ratio = np.median(np.array(taken[name]) / taken[BASE])
    return f"{np.median(taken[name]) * 1e3:.1f} ({ratio:.2f})"


if __name__ == "__main__":
    main()
