"""Every write of every job made to fail, and random bytes flipped in every file that a job reads.

    python -m faults.every faults                    every write of every job, in four ways
    python -m faults.every flips --each 200          200 flips in each file
    python -m faults.every flips --each 200 --bare   the same without the digests

Run in `tests`. A table is printed, and the exit status is 1 where anything was found.
"""

import argparse
import ctypes
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from faults import workshop
from faults.workshop import Ended, Job

MODES = ("the disk is full", "the disk fails", "permission is denied", "killed")
KILLED = MODES.index("killed")
ROWS, BASE, DATA = "results/rows/reviews", "results/backbones/base", "results/data/reviews"
FLIPPED = {
    "tokenise train": (f"{ROWS}/*", f"{BASE}/*"),
    "train O": (f"{DATA}/train*", f"{BASE}/*", ".pipeops/state/*/*/*/*"),
    "train E": ("results/models/reviews/O/seed1/*",),
    "export E": ("results/models/reviews/E/seed1/*",),
    "evaluate E": ("results/onnx/reviews/E/seed1/*", f"{DATA}/validation*"),
    "check": ("results/onnx/reviews/E/seed1/*", "results/onnx/reviews/O/seed1/*"),
    "curves O": ("results/prices/reviews/O*", "results/answers/reviews/O/*"),
    "curves E": ("results/prices/reviews/E*", "results/answers/reviews/E/*"),
    "table": ("results/curves/reviews/*.*",),
    "deploy": (
        "results/models/reviews/E/seed1/*",
        "results/onnx/reviews/E/seed1/*",
        "results/answers/reviews/E/*",
    ),
    "score": ("deployed/*",),
    "classify.py": ("deployed/*[!y]",),
}
"""By job, files that it reads, in which bytes are flipped. A program cannot check its own source."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", choices=["faults", "flips"])
    parser.add_argument("--job", action="append", help="only these; may be repeated")
    parser.add_argument("--sample", type=int, help="faults of each kind and job; default: all")
    parser.add_argument("--each", type=int, default=200, help="flips in each file")
    parser.add_argument("--bare", action="store_true", help="without digests")
    parser.add_argument("--seed", type=int, default=0, help="of the flips")
    parser.add_argument("--scratch", type=Path, help="folder for the studies; default: the system's")
    asked = parser.parse_args()
    if asked.what == "faults" and "LD_PRELOAD" not in os.environ:
        return _preloaded()
    workshop.import_all()
    with workshop.scratch(asked.scratch) as folder:
        whole = workshop.make(folder / "whole")
        found = []
        if asked.what == "faults":
            print("| job | " + " | ".join(MODES) + " | survived unharmed | failed the test |")
            print("|---|" + "---|" * (len(MODES) + 2))
            for job in _chosen(asked.job):
                found += fail_everywhere(job, whole, folder / "broken", asked.sample)
        else:
            print("| job | files | flips | refused in one line | result unchanged | failed the test |")
            print("|---|---|---|---|---|---|")
            workshop.interrupt(workshop.jobs()["train O"], whole)
            for job in _chosen(asked.job):
                found += flip_everywhere(job, whole, folder / "broken", asked.each, asked.bare, asked.seed)
    for problem in found:
        print(problem)
    return int(bool(found))


def fail_everywhere(job: Job, whole: Path, folder: Path, sample: int | None) -> list[str]:
    """Let every operation of a job fail in every way; print a row, and return what should not be."""
    shim = ctypes.CDLL(None)
    expected = workshop.written(job, whole)
    tried, survived, problems = Counter[int](), 0, []
    for mode, named in enumerate(MODES):
        undisturbed = workshop.forked(job, workshop.given(job, whole, folder), shim=shim, mode=mode)
        for n in workshop.spread(undisturbed.operations, sample):
            workshop.given(job, whole, folder)
            ended = workshop.forked(job, folder, shim=shim, mode=mode, failing_at=n)
            tried[mode] += 1
            survived += ended.status == 0
            for problem in _after_fault(job, folder, expected, ended, killed=mode == KILLED):
                problems.append(f"{job.name}, {named}, operation {n}: {problem}")
    numbers = " | ".join(str(tried[mode]) for mode in range(len(MODES)))
    print(f"| {job.name} | {numbers} | {survived} | {len(problems)} |", flush=True)
    return problems


def _after_fault(job: Job, folder: Path, expected: dict, ended: Ended, *, killed: bool) -> Iterator[str]:
    there = workshop.written(job, folder)
    if ended.status == 0:
        if there != expected:
            yield "exit status 0, and not what it should have written"
    elif not (ended.status == -signal.SIGKILL if killed else ended.refused_in_one_line):
        yield f"status {ended.status}: {ended.errors[-2000:]}"
    if halves := [name for name, content in there.items() if expected.get(name) != content]:
        yield f"not whole: {', '.join(halves)}"
    if job.once and there:
        return
    again = workshop.forked(job, folder)
    if again.status:
        yield f"run again, status {again.status}: {again.errors[-2000:]}"
    elif (now := workshop.written(job, folder)) != expected:
        differing = [name for name in expected if now.get(name) != expected[name]]
        yield f"run again, it differs: {', '.join(differing)}"
    elif left := workshop.leftovers(job, folder):
        yield f"run again, something is left: {', '.join(path.name for path in left)}"


def flip_everywhere(job: Job, whole: Path, folder: Path, each: int, bare: bool, seed: int) -> list[str]:
    """Flip bits in every file that a job reads; print a row, and return what should not be."""
    expected = workshop.written(job, whole)
    files = sorted({path for pattern in FLIPPED[job.name] for path in whole.glob(pattern) if path.is_file()})
    outcomes, problems = Counter[str](), []
    for file in files:
        name = file.relative_to(whole)
        sums = name.name == "SHA256SUMS" or name.suffix == ".sha256"
        if bare and sums:
            continue
        chance = random.Random(f"{seed} {job.name} {name}")
        for _ in range(each):
            workshop.given(job, whole, folder)
            _flip(folder / name, chance)
            if bare:
                for path in [*folder.rglob("SHA256SUMS"), *folder.rglob("*.sha256")]:
                    path.unlink()
            ended = workshop.forked(job, folder)
            if ended.status == 0:
                now = workshop.written(job, folder)
                outcome = "unchanged" if now == expected or bare else "silent"
            else:
                outcome = "refused" if ended.refused_in_one_line else "badly refused"
            outcomes[outcome] += 1
            if outcome in ("silent", "badly refused"):
                problems.append(
                    f"{job.name}, {name}: {outcome}: status {ended.status}: {ended.errors[-1500:]}"
                )
    numbers = f"{sum(outcomes.values())} | {outcomes['refused']} | {outcomes['unchanged']}"
    print(f"| {job.name} | {len(files)} | {numbers} | {len(problems)} |", flush=True)
    return problems


def _flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.unlink()  # it is a link to the whole one
    path.write_bytes(content)


def _chosen(names: list[str] | None) -> list[Job]:
    known = workshop.jobs()
    wanted = names or [name for name in known if "flips" not in sys.argv or name in FLIPPED]
    return [known[name] for name in wanted]


def _preloaded() -> int:
    """Run this again with the shim loaded before all libraries."""
    with workshop.scratch() as folder:
        shim = workshop.compiled(folder)
        if shim is None:
            print("no C compiler (cc), which the shim is made with")
            return 1
        command = [sys.executable, "-m", "faults.every", *sys.argv[1:]]
        return os.spawnve(os.P_WAIT, sys.executable, command, os.environ | {"LD_PRELOAD": str(shim)})


if __name__ == "__main__":
    sys.exit(main())
