"""What early exiting costs: ``model.onnx`` against straight graphs, on a RoBERTa-base with random weights.

Every round runs each graph once, in a turning order, so that a drifting machine drifts for all of them; a
ratio is the median of the rounds' ratios. The tables are judged by the limits below, but this only reports.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

import pipeops
from pipeops.emission import emit_stages
from pipeops.export import export, tensor_shapes, write
from pipeops.provenance import cpu
from pipeops.runtime import EarlyExitModel, Profiler, force_exit
from pipeops.shape import ModelShape
from pipeops.stitching import straight_graph

EXPORT_LIMIT_S = 60.0
SIZE_LIMIT = 1.05
COMPARISONS: tuple[tuple[str, str, float | None], ...] = (
    ("full depth", "every exit", 1.03),  # they do the same work
    ("full depth", "one exit", None),
    ("layer 1", "one layer", 1.30),  # the embeddings, one layer and its exit
)
"""How ``model.onnx`` is run, the straight graph it is compared with, and the limit of the ratio."""

Weights = dict[str, np.ndarray]
Runs = dict[str, Callable[[], object]]


def main() -> None:
    args = arguments()
    shape = roberta(args.layers, args.hidden, args.vocab)
    console = Console()
    machine = cpu()
    instructions = " ".join(machine["instructions"])
    console.print(
        f"{machine['model']} ({instructions}), {machine['cores']} cores, {args.threads} threads measured"
    )
    versions = {"pipeops": pipeops, "onnx": onnx, "onnxruntime": onnxruntime, "numpy": np}
    console.print(", ".join(f"{name} {module.__version__}" for name, module in versions.items()))
    console.print(
        f"RoBERTa, {args.layers} layers, hidden {args.hidden}, random weights; {args.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        seconds = export_all(shape, Path(folder))
        console.print(export_table(Path(folder), seconds))
        console.print(time_table(Path(folder), shape, args))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768, help="a multiple of 64, the size of a head")
    parser.add_argument("--vocab", type=int, default=50265)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[32, 128, 512], help="input lengths in tokens"
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def roberta(layers: int, hidden: int, vocab: int) -> ModelShape:
    """RoBERTa-base at the defaults, with an exit after every layer."""
    return ModelShape(
        family="roberta",
        vocab_size=vocab,
        hidden_size=hidden,
        head_size=64,
        heads_per_layer=(hidden // 64,) * layers,
        ffn_per_layer=(4 * hidden,) * layers,
        exit_layers=tuple(range(1, layers + 1)),
        num_labels=2,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        sep_token_id=2,
        layer_norm_eps=1e-5,
        hidden_act="gelu",
    )


def export_all(shape: ModelShape, folder: Path) -> float:
    """Write the graphs to compare; return how long exporting the checkpoint took, in seconds."""
    weights = random_weights(shape)
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps(asdict(shape)))
    save_file(weights, checkpoint / "model.safetensors")
    start = time.perf_counter()
    export(checkpoint, folder)
    seconds = time.perf_counter() - start
    single_exit = replace(shape, exit_layers=(shape.num_layers,))
    one_layer = replace(
        shape,
        heads_per_layer=shape.heads_per_layer[:1],
        ffn_per_layer=shape.ffn_per_layer[:1],
        exit_layers=(1,),
    )
    for name, variant in (("single-exit", single_exit), ("one-layer", one_layer)):
        write(straight_graph(emit_stages(variant, weights.__getitem__), variant), folder / f"{name}.onnx")
    return seconds


def random_weights(shape: ModelShape) -> Weights:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.02, dims).astype(np.float32) for name, dims in tensor_shapes(shape).items()}


def export_table(folder: Path, seconds: float) -> Table:
    table = Table("export", "measured", "limit", "verdict")
    sizes = [(folder / name).stat().st_size for name in ("model.onnx", "profile.onnx")]
    table.add_row(
        "both graphs, s", f"{seconds:.1f}", f"{EXPORT_LIMIT_S:.0f}", verdict(seconds, EXPORT_LIMIT_S)
    )
    ratio = sizes[0] / sizes[1]
    label = f"size, {sizes[0] / 1e6:.1f} MB over the straight graph's"
    table.add_row(label, f"{ratio:.4f}", f"{SIZE_LIMIT:.2f}", verdict(ratio, SIZE_LIMIT))
    return table


def time_table(folder: Path, shape: ModelShape, args: argparse.Namespace) -> Table:
    table = Table("tokens", "early exit", "ms", "straight", "ms", "ratio", "limit")
    model = EarlyExitModel.load(folder / "model.onnx", threads=args.threads)
    straight = {
        name: Profiler.load(folder / f"{name}.onnx", threads=args.threads)
        for name in ("profile", "single-exit", "one-layer")
    }
    for length in args.lengths:
        times = interleaved(runs(model, straight, shape, length), args.rounds)
        for early, base, limit in COMPARISONS:
            ratio = float(np.median(times[early] / times[base]))
            early_ms, base_ms = (f"{np.median(times[name]) * 1e3:.2f}" for name in (early, base))
            judged = "" if limit is None else f"{limit:.2f} {verdict(ratio, limit)}"
            table.add_row(str(length), early, early_ms, base, base_ms, f"{ratio:.3f}", judged)
        table.add_section()
    return table


def runs(model: EarlyExitModel, straight: dict[str, Profiler], shape: ModelShape, length: int) -> Runs:
    """The graphs to time, each on the same random input."""
    ids = np.random.default_rng(length).integers(3, shape.vocab_size, (1, length))
    mask = np.ones_like(ids)
    last, first = (force_exit(layer, shape.exit_layers) for layer in (shape.num_layers, 1))
    return {
        "every exit": lambda: straight["profile"].run(ids, mask),
        "one exit": lambda: straight["single-exit"].run(ids, mask),
        "full depth": lambda: model.run(ids, mask, last),
        "one layer": lambda: straight["one-layer"].run(ids, mask),
        "layer 1": lambda: model.run(ids, mask, first),
    }


def interleaved(runs: Runs, rounds: int) -> dict[str, np.ndarray]:
    """Seconds that each run took, in every round; the first three rounds warm up and are dropped."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds + 3):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - start)
    return {name: np.array(values[3:]) for name, values in times.items()}


def verdict(value: float, limit: float) -> str:
    return "ok" if value <= limit else "over"


if __name__ == "__main__":
    main()
