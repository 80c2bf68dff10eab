"""A tiny exported model with its answers and prices, for the tests of what is made of them."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from export_models import random_weights, tiny_shape, write_checkpoint
from helpers import write_examples

from pipeops.measuring.prices import COLUMNS
from pipeops.models.shape import ModelShape
from pipeops.onnx.export import export
from pipeops.pipeline import INFERENCE
from pipeops.provenance import provenance
from pipeops.settings import PricesSection

ORIGINAL = tiny_shape(vocab_size=60, exit_layers=(3,))
SHAPE = tiny_shape(vocab_size=60)
LENGTHS = (3, 7, 12)
MAX_LENGTH = 12
ANYWHERE = PricesSection(rounds=5, most_rounds=100, precision=0.9, unsteady=1e6, others=1e6)
"""Whatever else runs: what is measured means nothing."""


def exported(folder: Path, shape: ModelShape, seed: int = 0) -> Path:
    write_checkpoint(folder / "checkpoint", shape, random_weights(shape, seed))
    export(folder / "checkpoint", folder)
    return folder


def examples(folder: Path, rows: int = 40) -> Path:
    """The same input several times among them."""
    return write_examples(folder / "validation.parquet", rows=rows)


def write_prices(
    path: Path, shape: ModelShape = SHAPE, *, original: ModelShape = ORIGINAL, **changes
) -> Path:
    """Prices by a rule: an exit costs its layer tenths of O padded, half of that at length 0, Q half.

    The halves of the rounds are 1% below and above.
    """
    rows = []
    for inference in INFERENCE:
        for length in LENGTHS if "L" in inference else (MAX_LENGTH,):
            for layer in shape.exit_layers:
                relative = layer / 10 * (0.5 + length / MAX_LENGTH / 2) / (2 if "Q" in inference else 1)
                halves = (relative * 0.99, relative * 1.01)
                rows.append((inference, length, layer, 4 * relative, relative, 0.01, *halves, 12))
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False)
    about = {
        "rows": len(rows),
        "shape": asdict(shape),
        "original_shape": asdict(original),
        "max_length": MAX_LENGTH,
        "original_ms": {"median": 4.0},
        "int8_kernels": "AVX512-VNNI",
    }
    path.with_suffix(".json").write_text(json.dumps(provenance(settings={}) | about | changes))
    return path


def costs(lengths, exits, inference=""):
    """What the rule of :func:`write_prices` says."""
    widths = np.asarray(lengths) if "L" in inference else np.full(len(lengths), MAX_LENGTH)
    return (np.asarray(exits) + 1) / 10 * (0.5 + widths / MAX_LENGTH / 2) / (2 if "Q" in inference else 1)
