"""How planning scales: a dry run of ever more seeds, until 100,000 jobs.

python benchmarks/dag.py                 # 1,000, 10,000 and 100,000 jobs
python benchmarks/dag.py --jobs 1000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from pipeops.config import Config
from pipeops.planning import plan
from pipeops.provenance import cpu
from pipeops.reporting import markdown_table

ROOT = Path(__file__).parent.parent
DATASETS = ["generated-sentiment", "generated-paraphrase"]


def main() -> None:
    """Print the table and, as one line of JSON, what it was measured on."""
    arguments = _arguments()
    per_seed = sum(
        plan(Config(datasets=DATASETS, seeds=[1])).jobs[rule] for rule in ("train", "export", "measure")
    )
    rows = []
    for jobs in arguments.jobs:
        seeds = max(1, round(jobs / per_seed))
        planned, seconds, peak = dry_run(list(range(1, seeds + 1)))
        rows.append(
            [f"{planned:,}", f"{seconds:.1f}", f"{1e6 * seconds / planned:.0f}", f"{peak / 2**20:.0f}"]
        )
    print(markdown_table(["Jobs", "Seconds", "Microseconds a job", "Peak memory, MiB"], rows))
    print(json.dumps({"cpu": cpu()["model"]}))


def dry_run(seeds: list[int]) -> tuple[int, float, int]:
    """Plan the target ``all`` in an empty folder: jobs, seconds, and peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.yaml"
        study.write_text(yaml.safe_dump({"datasets": DATASETS, "seeds": seeds}))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", folder, "--dry-run", "--quiet", "rules", "--cores", "1", "all"]
        command += ["--configfile", str(ROOT / "config.yaml"), str(study)]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        raise SystemExit(output)
    total = next(line for line in output.splitlines() if line.startswith("total "))
    return int(total.split()[1]), seconds, 1024 * usage.ru_maxrss


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    return parser.parse_args()


if __name__ == "__main__":
    main()
