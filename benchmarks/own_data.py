"""Time and memory of reading a large CSV of one's own, and of tokenising all of it.

python benchmarks/own_data.py               # 1 GB of reviews of about 500 characters
python benchmarks/own_data.py --megabytes 50
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import psutil

from pipeops.text import markdown_table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the CSV (default: 1000)")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
        folder = Path(temporary)
        rows = write_reviews(folder / "reviews.csv", bytes_wanted=asked.megabytes * 10**6)
        settings = {"files": {"train": ["reviews.csv"]}, "held_out": 0.1, "text": ["body"], "label": "stars"}
        pretraining = {"examples": 1000, "epochs": 0}
        first = ["--rows", "rows/train.parquet"]
        jobs = {
            "rows": ["reviews", "--output", "rows", "--settings", json.dumps(settings)],
            "backbone": ["tiny", "--output", "base", "--settings", json.dumps(pretraining), *first],
            "tokenise": ["reviews", "train", "--backbone", "base", "--output", "train.parquet", *first],
        }
        table = []
        for command, arguments in jobs.items():
            seconds, peak = measured([command, *arguments], folder)
            table.append([command, f"{seconds:.0f} s", f"{peak / 1e9:.2f} GB"])
    print(f"{rows:,} rows, {asked.megabytes} MB")
    print(markdown_table(["pipeops", "time", "most memory"], table))


def write_reviews(path: Path, *, bytes_wanted: int) -> int:
    """Write a CSV of random words with five unequal classes; returns the number of rows."""
    rng, rows = Random(0), 0
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body", "stars"])
        while file.tell() < bytes_wanted:
            for _ in range(1000):
                body = " ".join(rng.choices(words, k=rng.randint(20, 130)))
                writer.writerow([rows, body, rng.choices([1, 2, 3, 4, 5], [1, 2, 4, 8, 16])[0]])
                rows += 1
    return rows


def measured(command: Sequence[str], folder: Path) -> tuple[float, int]:
    """Run a command of ``pipeops``: seconds, and the most bytes of memory that it has for itself.

    Pages of mapped files are not counted: they are the system's to take back.
    """
    started, peak = time.perf_counter(), 0
    run = subprocess.Popen([sys.executable, "-m", "pipeops", *command], cwd=folder)
    process = psutil.Process(run.pid)
    while run.poll() is None:
        try:
            memory = process.memory_info()
            peak = max(peak, memory.rss - memory.shared)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    if run.wait():
        sys.exit(f"pipeops {command[0]} failed")
    return time.perf_counter() - started, peak


if __name__ == "__main__":
    main()
