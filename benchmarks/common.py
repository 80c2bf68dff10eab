"""What the benchmarks share: a RoBERTa with random weights, and runs that take turns."""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from safetensors.numpy import save_file

import pipeops
from pipeops.hardware import cpu, int8_kernels
from pipeops.integrity import seal
from pipeops.models.shape import ModelShape, tensor_shapes
from pipeops.onnx.export import export
from pipeops.provenance import versions

Runs = dict[str, Callable[[], object]]


def positive(text: str) -> int:
    """A number of an option: 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
    return int(text)


def roberta(
    layers: int, hidden: int, vocab: int, *, heads: int | None = None, ffn: int | None = None
) -> ModelShape:
    """A RoBERTa with an exit after every layer; 12, 768 and 50265 are RoBERTa-base."""
    return ModelShape(
        family="roberta",
        vocab_size=vocab,
        hidden_size=hidden,
        head_size=64,
        heads_per_layer=(heads or hidden // 64,) * layers,
        ffn_per_layer=(ffn or 4 * hidden,) * layers,
        exit_layers=tuple(range(1, layers + 1)),
        num_labels=2,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        sep_token_id=2,
        layer_norm_eps=1e-5,
        hidden_act="gelu",
    )


def random_weights(shape: ModelShape) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.02, dims).astype(np.float32) for name, dims in tensor_shapes(shape).items()}


def export_random(shape: ModelShape, folder: Path) -> float:
    """Export a model of random weights to ``folder``; return how long exporting took, in seconds."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text(json.dumps(shape.to_config()))
    save_file(random_weights(shape), checkpoint / "model.safetensors")
    seal(checkpoint)
    start = time.perf_counter()
    export(checkpoint, folder)
    return time.perf_counter() - start


def turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """The names in each round's order. Another one comes first every round: what drifts, drifts for all."""
    for turn in range(rounds):
        first = turn % len(names)
        yield [*names[first:], *names[:first]]


def interleaved(
    runs: Runs, rounds: int, *, seconds: float = math.inf, pause: float = 0
) -> dict[str, np.ndarray]:
    """Seconds that each run took, in every round; the first three rounds warm up and are dropped.

    Args:
        runs: what is run, by name.
        rounds: how many count.
        seconds: after so many no round is begun any more, once three count.
        pause: seconds after each run, in which its threads stop spinning.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    begun = time.perf_counter()
    for turn, names in enumerate(turns(list(runs), rounds + 3)):
        if turn >= 6 and time.perf_counter() - begun > seconds:
            break
        for name in names:
            start = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - start)
            time.sleep(pause)
    return {name: np.array(values[3:]) for name, values in times.items()}


def introduce(console: Console, *, threads: int) -> None:
    """Print the machine and the versions that a figure depends on."""
    machine = cpu()
    console.print(
        f"{machine['model']} ({' '.join(machine['instructions'])}), {machine['cores']} cores, "
        f"{threads} threads measured, int8 on {int8_kernels()} kernels"
    )
    found = {"pipeops": pipeops.__version__} | versions("onnx", "onnxruntime", "numpy")
    console.print(", ".join(f"{name} {version}" for name, version in found.items()))
