"""How far prices can be trusted: random weights against trained ones, and the same prices taken twice.

python benchmarks/prices.py trained results --dataset generated-sentiment   # of a study
python benchmarks/prices.py again results/prices other/prices               # two pricings of one study

`trained` times every exit of every graph of one seed in turns with a graph of its shape and random weights.
Like `pipeops price` it wants the machine to itself. `again` compares what two pricings say.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from pipeops.data.tokenised import load_tokenised
from pipeops.measuring.contention import pinned, quietest_cores
from pipeops.measuring.price import random_input, random_model, targets_of
from pipeops.measuring.rounds import steady_rounds
from pipeops.onnx.paths import graph_path
from pipeops.onnx.runtime import EarlyExitModel
from pipeops.pipeline import Pipeline
from pipeops.settings import PricesSection
from pipeops.text import markdown_table

QUIET, BUSY = 0.03, 0.05
"""How far two pricings may differ in the median, of a quiet machine and of one with a busy core."""
PRECISION = 0.05
"""Standard error of a time over O's that is enough here: what counts are ratios within one round."""


def main() -> None:
    """Print one of the two tables."""
    arguments = _arguments()
    if arguments.command == "trained":
        trained(arguments.results, arguments.dataset, arguments.seed, arguments.pipelines)
    else:
        again(arguments.first, arguments.second)


def trained(results: Path, dataset: str, seed: int, pipelines: Sequence[str]) -> None:
    """Time exported models beside random ones of their shape; print the ratios of their times."""
    console = Console()
    found = pipelines or sorted(path.parent.name for path in results.glob(f"onnx/{dataset}/*/seed{seed}"))
    rows, every = [], []
    for name in found:
        ratios = random_over_trained(results, dataset, Pipeline(name), seed)
        worst = ratios.loc[(ratios["ratio"] - 1).abs().idxmax()]
        rows.append([name, str(len(ratios)), f"{ratios['ratio'].median():.3f}", _place(worst)])
        every.append(ratios["ratio"])
        console.print(f"{name}: median {ratios['ratio'].median():.3f}, worst {_place(worst)}")
    print(markdown_table(["pipeline", "times", "random / trained, median", "worst"], rows))
    ratios = pd.concat(every)
    print(f"\nall: median {ratios.median():.3f}, median distance from 1 {(ratios - 1).abs().median():.1%}")


def random_over_trained(results: Path, dataset: str, pipeline: Pipeline, seed: int) -> pd.DataFrame:
    """Time of random weights over that of trained ones, a row per way of running the model."""
    record = json.loads((results / f"prices/{dataset}/{pipeline.operators}.json").read_text())
    settings = PricesSection.model_validate(record["parameters"]["settings"])
    settings = settings.model_copy(update={"precision": PRECISION})
    split = load_tokenised(results / f"data/{dataset}/validation.parquet")
    lengths = np.array([len(ids) for ids in split.input_ids])
    cores = quietest_cores(settings.threads)
    exported = results / f"onnx/{dataset}/{pipeline}/seed{seed}"
    with tempfile.TemporaryDirectory() as folder, pinned(cores):

        def load(path: Path) -> EarlyExitModel:
            return EarlyExitModel.load(path, threads=settings.threads, cores=cores)

        real = {q: load(graph_path(exported, "model", quantised=q)) for q in (False, True)}
        shape = real[False].shape
        random = {
            q: random_model(shape, Path(folder) / "random.onnx", q, settings, cores) for q in (False, True)
        }
        original = load(graph_path(results / f"onnx/{dataset}/O/seed{seed}", "model", quantised=False))
        ways = [targets_of(models, lengths, split.max_length, settings) for models in (random, real)]
        padded = random_input(original.shape, int(np.median(lengths)), split.max_length, seed=settings.seed)
        rounds = steady_rounds(
            [target.run for pair in zip(*ways, strict=True) for target in pair],
            lambda: original.run(*padded),
            settings,
            what=f"times of {pipeline}",
        )
    relative = np.array([one.relative for one in rounds.steady(settings.unsteady)])
    ratio = np.median(relative[:, ::2] / relative[:, 1::2], axis=0)
    where = [(target.inference, target.length, target.exit_layer) for target in ways[0]]
    return pd.DataFrame(where, columns=["inference", "length", "exit_layer"]).assign(
        ratio=ratio, time_relative=np.median(relative[:, 1::2], axis=0)
    )


def again(first: Path, second: Path) -> None:
    """Compare two folders of prices; print by how much they differ, shape by shape."""
    keys = ["inference", "length", "exit_layer"]
    rows, every = [], []
    for path in sorted(first.glob("*/*.csv")):
        name = path.relative_to(first)
        if not (second / name).exists():
            print(f"left out: {second / name} is not there")
            continue
        one, other = (pd.read_csv(file, keep_default_na=False) for file in (path, second / name))
        both = one.merge(other, on=keys, suffixes=("", "_again"), validate="one_to_one")
        both["ratio"] = both["time_relative_again"] / both["time_relative"]
        worst = both.loc[(both["ratio"] - 1).abs().idxmax()]
        others = [_others(folder / name) for folder in (first, second)]
        distance = (both["ratio"] - 1).abs().median()
        rows.append([str(name.with_suffix("")), f"{distance:.1%}", _place(worst), " / ".join(others)])
        every.append(both["ratio"])
    header = ["prices", "median difference", "worst", "cores that others used"]
    print(markdown_table(header, rows))
    distance = (pd.concat(every) - 1).abs().median()
    print(f"\nall: median difference {distance:.1%} (aims: {QUIET:.0%} quiet, {BUSY:.0%} beside a busy core)")


def _place(row: pd.Series) -> str:
    share = f", {row['time_relative']:.2f} of O" if row["time_relative"] < 0.1 else ""
    return (
        f"{row['ratio']:.3f} ({row['inference'] or 'as it is'}, {row['length']} tokens, "
        f"layer {row['exit_layer']}{share})"
    )


def _others(path: Path) -> str:
    return f"{json.loads(path.with_suffix('.json').read_text())['contention']['others_cores']:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    real = commands.add_parser("trained", help="random weights against trained ones")
    real.add_argument("results", type=Path, help="of a study")
    real.add_argument("--dataset", default="generated-sentiment")
    real.add_argument("--seed", type=int, default=1)
    real.add_argument("--pipelines", nargs="*", default=[], help="default: all that were exported")
    twice = commands.add_parser("again", help="two pricings of one study")
    twice.add_argument("first", type=Path)
    twice.add_argument("second", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
