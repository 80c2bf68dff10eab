"""A tiny exported model with its answers and prices, for the tests of what is made of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from export_models import random_weights, tiny_shape, write_checkpoint
from helpers import write_examples

from pipeops.analysis.replays import Replays
from pipeops.hardware import int8_kernels
from pipeops.measuring.answers import METADATA, Answers
from pipeops.measuring.classes import ACCURACY
from pipeops.measuring.policies import thresholds_of
from pipeops.measuring.prices import COLUMNS, Costs, Prices
from pipeops.measuring.replay import Replay
from pipeops.models.shape import ModelShape
from pipeops.onnx.export import export
from pipeops.pipeline import INFERENCE, Pipeline
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
        "shape": shape.to_config(),
        "original_shape": original.to_config(),
        "max_length": MAX_LENGTH,
        "original_ms": {"median": 4.0},
        "int8_kernels": int8_kernels(),
    }
    path.with_suffix(".json").write_text(json.dumps(provenance(settings={}) | about | changes))
    return path


def made_up_replays(runs, *, thresholds, rows=200, dataset="sst2", right=0.8, metric=ACCURACY, every=2):
    """Random answers and prices by rule of the runs (pipeline, seed): D halves the depth of six layers.

    Later exits are surer and more often right. Prices are as :func:`write_prices` writes them. One example in
    ``every`` is of the first class.
    """
    replays = {}
    for number, (pipeline, seed) in enumerate(runs):
        rng = np.random.default_rng([number, seed])
        depth = 3 if "D" in pipeline else 6
        exits = tuple(range(1, depth + 1)) if "E" in pipeline else (depth,)
        shape, original = (
            tiny_shape(heads_per_layer=(4,) * n, ffn_per_layer=(48,) * n, exit_layers=at)
            for n, at in ((depth, exits), (6, (6,)))
        )
        labels = (np.arange(rows) % every > 0).astype(np.int64)
        answer = np.where(rng.random((rows, len(exits))) < right, labels[:, None], 1 - labels[:, None])
        size = rng.exponential(np.array(exits), size=answer.shape)
        logits = np.stack([np.where(answer == label, size, 0) for label in (0, 1)], axis=-1).astype(
            np.float32
        )
        answers = Answers(
            path=Path(f"{pipeline}.parquet"),
            lengths=np.random.default_rng(0).integers(3, MAX_LENGTH + 1, rows),
            label_ids=labels,
            logits={"fp32": logits, "int8": logits[::-1].copy()},
            shape=shape,
            labels=("no", "yes"),
            max_length=MAX_LENGTH,
            record={},
        )
        relative = {
            letters: Costs(
                np.array(widths := LENGTHS if "L" in letters else (MAX_LENGTH,)),
                np.array([costs([width] * len(exits), np.array(exits) - 1, letters) for width in widths]),
            )
            for letters in INFERENCE
        }
        halves = tuple(
            {letters: Costs(cost.lengths, cost.relative * factor) for letters, cost in relative.items()}
            for factor in (0.99, 1.01)
        )
        prices = Prices(
            path=Path("prices.csv"),
            shape=shape,
            original=original,
            max_length=MAX_LENGTH,
            original_ms=4.0,
            costs=relative,
            halves=halves,
            record={"int8_kernels": "generic"},
        )
        replays[dataset, pipeline, seed] = Replay(answers, prices, metric)
    return Replays(runs=replays, confidence="max_probability", thresholds=thresholds)


def write_runs(results: Path, replays: Replays) -> None:
    """Write made-up runs where the workflow leaves answers and prices."""
    for (dataset, pipeline, seed), replay in replays.runs.items():
        answers, path = replay.answers, results / f"answers/{dataset}/{pipeline}/seed{seed}.parquet"
        columns = {"length": pa.array(answers.lengths), "label": pa.array(answers.label_ids)}
        for precision, logits in answers.logits.items():
            columns[precision] = pa.FixedSizeListArray.from_arrays(logits.ravel(), logits[0].size)
        about = {"dataset": dataset, "pipeline": pipeline, "seed": seed, "labels": answers.labels}
        about |= {"max_length": MAX_LENGTH, "shape": replay.shape.to_config()}
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about)}), path)
        priced = results / f"prices/{dataset}/{Pipeline(pipeline).operators}.csv"
        write_prices(priced, replay.shape, original=replay.prices.original)


def curves_of(replays):
    """The measurements that belong to them, as ``runs.read_runs`` returns them."""
    rows = []
    for (dataset, pipeline, seed), replay in replays.runs.items():
        for letters in INFERENCE:
            used = thresholds_of(
                replays.confidence,
                exits=len(replay.shape.exit_layers),
                thresholds=replays.thresholds,
                patiences=replays.patiences,
            )
            for row in replay.points(letters, replays.confidence, used):
                rows.append({"dataset": dataset, "pipeline": pipeline, "seed": seed} | row)
    return pd.DataFrame(rows)


def costs(lengths, exits, inference=""):
    """What the rule of :func:`write_prices` says."""
    widths = np.asarray(lengths) if "L" in inference else np.full(len(lengths), MAX_LENGTH)
    return (np.asarray(exits) + 1) / 10 * (0.5 + widths / MAX_LENGTH / 2) / (2 if "Q" in inference else 1)
