"""How planning scales: a dry run of ever more seeds, until 100,000 jobs.

    python benchmarks/dag.py                 # 1,000, 10,000 and 100,000 jobs
    python benchmarks/dag.py --jobs 1000

Jobs are planned when Snakemake prints how many there are: a run would start its first job then. A dry run
goes on and describes every job.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeops.hardware import cpu
from pipeops.study.config import Config
from pipeops.study.planning import plan
from pipeops.text import markdown_table

ROOT = Path(__file__).parent.parent
DATASETS = ["generated-sentiment", "generated-paraphrase"]


def main() -> None:
    """Print the table and, as one line of JSON, what it was measured on."""
    arguments = _arguments()
    per_seed = sum(
        plan(Config(datasets=DATASETS, seeds=[1])).jobs[rule] for rule in ("train", "export", "evaluate")
    )
    rows = []
    for jobs in arguments.jobs:
        seeds = max(1, round(jobs / per_seed))
        run = dry_run(list(range(1, seeds + 1)))
        each = 1e6 * run.planned / run.jobs
        cells = [f"{run.planned:.1f}", f"{each:.0f}", f"{run.described:.1f}", f"{run.peak / 2**20:.0f}"]
        rows.append([f"{run.jobs:,}", *cells])
    header = ["Jobs", "Planned in, s", "Microseconds a job", "Dry run, s", "Peak memory, MiB"]
    print(markdown_table(header, rows))
    print(json.dumps({"cpu": cpu()["model"]}))


@dataclass(frozen=True)
class Run:
    """A dry run."""

    jobs: int
    planned: float
    """Seconds from the start until all jobs are known."""
    described: float
    """Seconds from the start to the end."""
    peak: int
    """Memory in bytes."""


def dry_run(seeds: list[int]) -> Run:
    """Plan the target ``all`` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.yaml"
        study.write_text(yaml.safe_dump({"datasets": DATASETS, "seeds": seeds}))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", folder, "--dry-run", "--quiet", "rules", "--cores", "1", "all"]
        command += ["--configfile", str(ROOT / "config.yaml"), str(study)]
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        output, totals = [], []
        for line in process.stdout:
            output.append(line)
            if line.startswith("total "):
                totals.append((int(line.split()[1]), time.perf_counter() - start))
        _, status, usage = os.wait4(process.pid, 0)
        described = time.perf_counter() - start
    if status:
        raise SystemExit("".join(output))
    jobs, planned = totals[0]
    return Run(jobs, planned, described, 1024 * usage.ru_maxrss)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    return parser.parse_args()


if __name__ == "__main__":
    main()
