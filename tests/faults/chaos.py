"""The small study, killed again and again at random moments; its results must be those of an undisturbed run.

    python -m faults.chaos --kills 100 --folder FOLDER

Run in `tests`. What is done is kept in the folder, so that the command goes on where it was stopped. Signals:

- SIGKILL to Snakemake alone (its jobs go on, as orphans), to all processes, or to one process of a job;
- SIGTERM to Snakemake (it waits for its jobs), or to one process of a job;
- SIGSTOP to all processes, SIGCONT seconds later.

The moments are drawn in CPU time that the study has used, so that a busy machine changes nothing.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from helpers import ROOT, SNAKEMAKE, STUDY, write_two_layer_backbone

KINDS = (
    *("SIGKILL to Snakemake", "SIGKILL to all", "SIGKILL to a job"),
    *("SIGTERM to Snakemake", "SIGTERM to a job", "SIGSTOP and SIGCONT"),
)
IDLE = 5 * 600
"""Looks, five a second, after which a study that uses no CPU time hangs."""
TIMED = ("time", "iqr", "first_half", "second_half", "rounds", "original_ms")
CHOSEN_BY_TIME = (Path("recommendation.csv"),)
"""Which pipeline fits a budget depends on what was measured."""
SAME = ("**/*.safetensors", "**/*.onnx", "**/*.parquet", "models/**/config.json", "models/**/tokenizer.json")
"""Files of the results that are the same bytes on every run."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--folder", type=Path, default=Path("chaos"), help="where the studies and the log are"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--longest", type=float, default=25, help="CPU seconds to the next signal, at most")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    undisturbed, disturbed, log = folder / "undisturbed", folder / "disturbed", folder / "log.jsonl"
    while (done := len(read(log, "signal"))) < asked.kills:
        if not disturbed.exists():
            begin(disturbed)
        chance = random.Random(f"{asked.seed} {done}")
        if disturb(disturbed, log, chance, asked.cores, asked.longest):
            compare(undisturbed, disturbed, log, asked.cores)
    if disturbed.exists():
        finish(disturbed, asked.cores)
        compare(undisturbed, disturbed, log, asked.cores)
    return report(log)


def begin(folder: Path) -> None:
    """A folder with the study in it."""
    folder.mkdir(parents=True)
    model = {"max_length": 40}
    for seed, name in enumerate(("backbone", "student")):
        write_two_layer_backbone(folder / name, seed=seed)
        model[name] = name
    training = STUDY["training"] | {"checkpoint_every": 0.1, "epochs": 3}
    study = STUDY | {"seeds": [1], "model": model, "training": training}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))


def start(folder: Path, cores: int, *options: str) -> subprocess.Popen:
    """Start Snakemake in a session of its own."""
    command = [*SNAKEMAKE, "--cores", str(cores), "--workflow-profile", str(ROOT / "profiles/default")]
    command += [*options, "--configfile", str(ROOT / "config.yaml"), "study.yaml", "--", "all"]
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)


def disturb(folder: Path, log: Path, chance: random.Random, cores: int, longest: float) -> bool:
    """Start the study and send signals at random moments, until it ends; whether it is finished."""
    unlock(folder, cores)
    process, disturbed = start(folder, cores), False
    while True:
        if wait(process, chance.uniform(0.5, longest)):
            break
        kind = chance.choice(KINDS)
        if send(kind, process, chance):
            disturbed = True
            note(log, {"signal": kind})
    refuse_tracebacks(folder)
    assert disturbed or process.returncode == 0, (folder / "output.txt").read_text()[-4000:]
    return process.returncode == 0


def wait(process: subprocess.Popen, cpu_seconds: float) -> bool:
    """Wait until Snakemake and its jobs have used so much more CPU time, or have ended; whether they have.

    Raises:
        AssertionError: they use none for ten minutes.
    """
    begun, idle = used(process), 0
    last = begun
    while last < begun + cpu_seconds:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
            return True
        now = used(process)
        idle = 0 if now > last else idle + 1
        assert idle < IDLE, f"it hangs: process {process.pid}"
        last = max(last, now)
    return False


def used(process: subprocess.Popen) -> float:
    """CPU seconds of a process and all below it, those that have ended included."""
    seconds = 0.0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(process.pid)
        for one in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                seconds += sum(one.cpu_times()[:4])
    return seconds


def send(kind: str, process: subprocess.Popen, chance: random.Random) -> bool:
    """Send a signal; whether there was a process to send it to."""
    number = signal.SIGKILL if kind.startswith("SIGKILL") else signal.SIGTERM
    try:
        if kind.endswith("Snakemake"):
            process.send_signal(number)
        elif kind.endswith("a job"):
            jobs = psutil.Process(process.pid).children(recursive=True)
            if not jobs:
                return False
            chance.choice(jobs).send_signal(number)
        elif kind.endswith("all"):
            os.killpg(process.pid, number)
        else:
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(chance.uniform(0.1, 5))
            os.killpg(process.pid, signal.SIGCONT)
    except (ProcessLookupError, psutil.Error):  # it has just ended
        return False
    return True


def unlock(folder: Path, cores: int) -> None:
    """What a user does after a kill."""
    if (folder / ".snakemake/locks").is_dir() and any((folder / ".snakemake/locks").iterdir()):
        assert start(folder, cores, "--unlock").wait() == 0, (folder / "output.txt").read_text()[-4000:]


def finish(folder: Path, cores: int) -> None:
    """Run to the end, undisturbed."""
    unlock(folder, cores)
    assert start(folder, cores).wait() == 0, (folder / "output.txt").read_text()[-4000:]


def refuse_tracebacks(folder: Path) -> None:
    """Whatever came, the logs of the jobs hold no traceback of ours."""
    for log in (folder / "logs").rglob("*.log"):
        text = log.read_text(errors="replace")
        assert "Traceback" not in text, f"{log}:\n{text[-3000:]}"


def compare(undisturbed: Path, disturbed: Path, log: Path, cores: int) -> None:
    """Compare a finished study with the undisturbed one, note the differences, and remove it."""
    wait_for_orphans(disturbed)
    if not (undisturbed / "done").exists():
        shutil.rmtree(undisturbed, ignore_errors=True)
        begin(undisturbed)
        finish(undisturbed, cores)
        (undisturbed / "done").touch()
    note(log, {"differences": differences(undisturbed / "results", disturbed / "results")})
    shutil.rmtree(disturbed)


def wait_for_orphans(folder: Path) -> None:
    """Jobs whose Snakemake was killed go on, and write what their successors have written."""
    while any(_works_in(process, folder) for process in psutil.process_iter()):
        time.sleep(0.5)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return Path(process.cwd()) == folder
    return False


def differences(one: Path, two: Path) -> list[str]:
    """Files of results that differ in anything but times."""
    found = []
    names = {path.relative_to(root) for root in (one, two) for path in root.rglob("*") if path.is_file()}
    for name in sorted(names):
        if any(part.startswith(".") for part in name.parts):
            found.append(f"{name}: left")
        elif not ((one / name).exists() and (two / name).exists()):
            found.append(f"{name}: is in one of them")
        elif any(name.match(pattern) for pattern in SAME):
            if _digest(one / name) != _digest(two / name):
                found.append(f"{name}: other bytes")
        elif name.suffix == ".csv" and name.parts[0] in ("curves", "prices", "checks"):
            if not _untimed(one / name).equals(_untimed(two / name)):
                found.append(f"{name}: other values")
        elif name in CHOSEN_BY_TIME:
            continue
        elif name.suffix == ".csv" and not _words(one / name).equals(_words(two / name)):
            found.append(f"{name}: other rows")
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _untimed(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    return table[[name for name in table if not any(name.startswith(timed) for timed in TIMED)]]


def _words(path: Path) -> pd.DataFrame:
    """Rows of a table without its numbers, which follow from times."""
    return pd.read_csv(path).select_dtypes(exclude="number")


def note(log: Path, record: dict[str, Any]) -> None:
    """Add a line to the log."""
    with log.open("a") as file:
        file.write(json.dumps(record) + "\n")


def read(log: Path, key: str) -> list[Any]:
    """What the log holds under a key."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [record[key] for record in map(json.loads, lines) if key in record]


def report(log: Path) -> int:
    """Print what was done and found."""
    compared = read(log, "differences")
    print("| signal | times |\n|---|---|")
    for kind, times in sorted(Counter(read(log, "signal")).items()):
        print(f"| {kind} | {times} |")
    differing = [line for one in compared for line in one]
    print(f"\n{len(compared)} studies compared with an undisturbed run: {len(differing)} differences")
    print("\n".join(differing))
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
