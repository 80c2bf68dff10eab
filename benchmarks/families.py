"""What inference costs by family: the shapes of RoBERTa-base, MPNet-base and ModernBERT-base, random weights.

    python benchmarks/families.py                                       # 32, 128, 512 and 2,048 tokens
    python benchmarks/families.py --layers 3 --hidden 64 --vocab 100 --lengths 8 16 --rounds 3 --threads 1

Exported graphs, straight through and with early exits forced at layer 1 and at full depth, in fp32 and int8,
stand beside the same model in PyTorch. Every round runs each once, in a turning order; a ratio is the median
of the rounds' ratios. A shape is given as many positions as the longest length needs.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import Runs, export_random, interleaved, introduce
from rich.console import Console
from rich.table import Table

from pipeops.models.architectures import KNOWN
from pipeops.models.families.pre_norm import PreNorm
from pipeops.models.multi_exit import MultiExitConfig, MultiExitForSequenceClassification
from pipeops.models.shape import ModelShape
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel, Profiler, force_exit

SHAPES = {
    "RoBERTa": "FacebookAI/roberta-base",
    "MPNet": "microsoft/mpnet-base",
    "ModernBERT": "answerdotai/ModernBERT-base",
}
HEAD_SIZE = 64


def main() -> None:
    args = arguments()
    console = Console()
    introduce(console, threads=args.threads)
    console.print(f"torch {torch.__version__}; random weights; {args.rounds} rounds")
    torch.set_num_threads(args.threads)
    table = Table("family", "tokens", "run", "ms", "over torch")
    for family in SHAPES:
        shape = shape_of(family, args)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            export_random(shape, folder)
            add_rows(table, family, shape, folder, args)
    console.print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, help="of each encoder; its own number unless given")
    parser.add_argument("--hidden", type=int, default=768, help=f"a multiple of {HEAD_SIZE}, a head's size")
    parser.add_argument("--vocab", type=int, help="its own number unless given")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512, 2048], help="in tokens")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
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


def add_rows(table: Table, family: str, shape: ModelShape, folder: Path, args: argparse.Namespace) -> None:
    """Measure one family at every length."""
    graphs = {
        precision: (
            EarlyExitModel.load(graph_path(folder, "model", quantised=quantised), threads=args.threads),
            Profiler.load(graph_path(folder, "profile", quantised=quantised), threads=args.threads),
        )
        for precision, quantised in (("fp32", False), ("int8", True))
    }
    model = MultiExitForSequenceClassification(MultiExitConfig.from_shape(shape)).eval()
    for length in args.lengths:
        with torch.inference_mode():
            times = interleaved(runs(graphs, model, shape, length), args.rounds)
        for name, seconds in times.items():
            ratio = np.median(seconds / times["torch"])
            table.add_row(family, str(length), name, f"{np.median(seconds) * 1e3:.2f}", f"{ratio:.3f}")
        table.add_section()


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
    found: Runs = {"torch": lambda: model(*tokens)}
    for precision, (early, straight) in graphs.items():
        found[f"{precision} straight"] = lambda straight=straight: straight.run(ids, mask)
        for name, layer in (("full depth", shape.num_layers), ("layer 1", 1)):
            thresholds = force_exit(layer, shape.exit_layers)
            found[f"{precision} {name}"] = lambda early=early, thresholds=thresholds: early.run(
                ids, mask, thresholds
            )
    return found


if __name__ == "__main__":
    main()
