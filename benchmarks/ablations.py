"""What each part of C (COST-EFF) is worth: the study's C beside three that lack one part each.

    python benchmarks/ablations.py                      # the default study, in results/ablations
    python benchmarks/ablations.py --configfile my.yaml

Every variant starts from the same O of its seed, and is trained equally long. What all share (backbone, data,
O) is made once, by the first, and copied to the others.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from pipeops.analysis.joint import costeff
from pipeops.analysis.runs import pool, pool_exits
from pipeops.study.config import read_study
from pipeops.text import markdown_table, mean_and_sd_as_text

ROOT = Path(__file__).parent.parent
VARIANTS = {
    "as Shen et al. 2022": {},
    "importance of the last exit": {"importance": "last-exit"},
    "one shot": {"schedule": "one-shot"},
    "taught by O": {"teacher": "fine-tuned"},
}
SHARED = ("backbones", "data", "models/{dataset}/O", "onnx/{dataset}/O")


def main() -> None:
    """Run the variants and print their table."""
    arguments = _arguments()
    folders = {name: Path(arguments.results) / name.replace(" ", "-") for name in VARIANTS}
    first, *others = folders.values()
    tables = {}
    for name, folder in folders.items():
        if folder in others:
            copy_shared(first, folder, arguments.dataset)
        curves = [folder / f"curves/{arguments.dataset}/C/seed{seed}.csv" for seed in arguments.seeds]
        run(folder, VARIANTS[name], [folder / f"curves/{arguments.dataset}/C.csv"], arguments)
        tables[name] = summary(curves)
    columns = next(iter(tables.values()))
    rows = [[name, *cells.values()] for name, cells in tables.items()]
    print(markdown_table(["C", *columns], rows))


def run(folder: Path, changes: dict[str, str], targets: list[Path], arguments: argparse.Namespace) -> None:
    """Make the targets of one variant."""
    settings = {
        "pathvars": {"results": str(folder), "logs": f"logs/{folder}"},
        "datasets": [arguments.dataset],
        "seeds": arguments.seeds,
        **({"costeff": changes} if changes else {}),
    }
    command = [sys.executable, "-m", "snakemake", "--cores", str(arguments.cores), "--quiet", "all"]
    command += ["--configfile", str(ROOT / "config.yaml"), *arguments.configfile]
    command += ["--config", *(f"{key}={value}" for key, value in settings.items())]
    subprocess.run([*command, "--", *map(str, targets)], check=True)


def copy_shared(source: Path, target: Path, dataset: str) -> None:
    """Copy what does not depend on C, with its times: Snakemake makes again only what is older."""
    for name in SHARED:
        part = name.format(dataset=dataset)
        shutil.rmtree(target / part, ignore_errors=True)
        shutil.copytree(source / part, target / part)


def summary(curves: list[Path]) -> dict[str, str]:
    """Accuracy of every exit, within a quarter of O's time, and the area: means ± SDs over the seeds."""
    [row] = costeff(pool(curves), ["C"]).query("inference == ''").to_dict("records")
    exits = pool_exits(curves)
    by_exit = exits[exits["inference"] == ""].groupby("exit_layer")["accuracy"]
    cells = {f"exit {k:g}": mean_and_sd_as_text(100 * a.mean(), 100 * a.std(), digits=1) for k, a in by_exit}
    for measure, title in (("acc_time_1_4", "t = 1/4"), ("area", "area")):
        mean, sd = row[f"{measure}_mean"], row[f"{measure}_sd"]
        cells[title] = mean_and_sd_as_text(mean, sd, digits=1)
    return cells


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configfile", nargs="*", default=[], help="over config.yaml")
    parser.add_argument("--dataset", help="default: the study's first")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: the study's")
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--results", default="results/ablations")
    arguments = parser.parse_args()
    study = read_study([Path(file) for file in arguments.configfile])
    arguments.dataset = arguments.dataset or study.datasets[0]
    arguments.seeds = arguments.seeds or study.seeds
    return arguments


if __name__ == "__main__":
    main()
