"""The benchmark of prices says what it compares, and by how much it differs."""

import json
import re
import subprocess
import sys

import pandas as pd
from export_models import tiny_shape
from helpers import ROOT, write_examples
from measured import ANYWHERE, ORIGINAL, SHAPE, exported, write_prices


def benchmark(*arguments):
    command = [sys.executable, ROOT / "benchmarks/prices.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def amend(path, **changes):
    """Change what stands beside prices."""
    details = path.with_suffix(".json")
    details.write_text(json.dumps(json.loads(details.read_text()) | changes))


def test_every_way_of_running_a_trained_model_is_timed_beside_random_weights(tmp_path):
    write_examples(tmp_path / "data/sst2/validation.parquet", rows=10)
    for name, shape in (("O", ORIGINAL), ("E", SHAPE)):
        exported(tmp_path / f"onnx/sst2/{name}/seed1", shape)
        path = write_prices(tmp_path / f"prices/sst2/{name}.csv", shape)
        amend(path, parameters={"settings": ANYWHERE.model_dump()})
    out = benchmark("trained", tmp_path, "--dataset", "sst2", "--pipelines", "E")
    lengths = len(pd.unique(pd.read_parquet(tmp_path / "data/sst2/validation.parquet").input_ids.map(len)))
    ways = 2 * len(tiny_shape().exit_layers) * (1 + min(lengths, ANYWHERE.lengths))
    assert re.search(rf"\| E +\| {ways} +\|", out)
    assert re.search(r"^all: median \d\.\d+, median distance from 1 [\d.]+%$", out, re.MULTILINE)


def test_two_pricings_are_compared_row_by_row(tmp_path):
    for name in ("first", "second"):
        write_prices(tmp_path / name / "sst2/E.csv")
    path = tmp_path / "second/sst2/E.csv"
    table = pd.read_csv(path)
    table["time_relative"] *= 1.02
    table.loc[5, "time_relative"] *= 1.5
    table.to_csv(path, index=False)
    for folder, others in (("first", 0.01), ("second", 0.25)):
        amend(tmp_path / folder / "sst2/E.csv", contention={"others_cores": others})
    out = benchmark("again", tmp_path / "first", tmp_path / "second")
    place = f"{table.length[5]} tokens, layer {table.exit_layer[5]}"
    assert re.search(rf"\| sst2/E +\| 2\.0% +\| 1\.530 \(.*{place}.*\) +\| 0\.01 / 0\.25", out)
    assert "all: median difference 2.0%" in out
