"""Every write of every job made to fail, and random bytes flipped in every file that a job reads.

    python -m faults.every faults                    every write of every job, in four ways
    python -m faults.every flips --each 200          200 flips in each file
    python -m faults.every flips --each 200 --bare   the same without the digests

Run in `tests`. A table is printed, and the exit status is 1 where anything was found. With `--folder` what is
tried is kept there, so that the command goes on where it was stopped.
"""

import argparse
import ctypes
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults import workshop
from faults.workshop import KILLED, MODES, Ended, Job
from pipeops.provenance import provenance

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
REFUSED, UNCHANGED, SILENT, BADLY = OUTCOMES = (
    "refused in one line",
    "result unchanged",
    "silent",
    "traceback",
)
HEADINGS = {
    "faults": (*MODES, "survived unharmed", "failed the test"),
    "flips": ("files", "flips", *OUTCOMES),
}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", choices=["faults", "flips"])
    parser.add_argument("--job", action="append", help="only these; may be repeated")
    parser.add_argument("--sample", type=int, help="faults of each kind and job; default: all")
    parser.add_argument("--each", type=int, default=200, help="flips in each file")
    parser.add_argument("--bare", action="store_true", help="without digests")
    parser.add_argument("--seed", type=int, default=0, help="of the flips")
    parser.add_argument("--folder", type=Path, help="for the study and the log; default: one that is removed")
    asked = parser.parse_args()
    if asked.what == "faults" and "LD_PRELOAD" not in os.environ:
        return _preloaded()
    workshop.import_all()
    with workshop.scratch(asked.folder) as folder:
        folder /= f"{asked.what}-bare" if asked.bare else asked.what
        whole = workshop.made(folder / "whole", interrupted=asked.what == "flips")
        log, broken, found = Log(folder / "log.jsonl"), folder / "broken", []
        print(f"| job | {' | '.join(HEADINGS[asked.what])} |")
        print("|---|" + "---|" * len(HEADINGS[asked.what]))
        for job in _chosen(asked.job):
            if asked.what == "faults":
                found += fail_everywhere(job, whole, broken, log, asked.sample)
            else:
                found += flip_everywhere(job, whole, broken, log, asked.each, asked.bare, asked.seed)
    for problem in found:
        print(problem)
    return int(bool(found))


class Log:
    """What was tried, a line each, by program."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known = {tuple(trial): result for trial, result in map(json.loads, lines)}
        program = provenance()["commit"]
        if self._known.setdefault(("program",), program) != program:
            sys.exit(f"{path}: is of {self._known['program',]}, and this is {program}; name another --folder")
        if not lines:
            self.note(("program",), program)

    def __contains__(self, trial: tuple) -> bool:
        return trial in self._known

    def __getitem__(self, trial: tuple) -> Any:
        return self._known[trial]

    def note(self, trial: tuple, result: Any) -> None:
        """Keep what came of a trial."""
        self._known[trial] = result
        with self._path.open("a") as file:
            file.write(f"{json.dumps([trial, result])}\n")


def fail_everywhere(job: Job, whole: Path, folder: Path, log: Log, sample: int | None) -> list[str]:
    """Let every operation of a job fail in every way; print a row, and return what should not be."""
    shim = ctypes.CDLL(None)
    expected = workshop.written(job, whole)
    workshop.given(job, whole, folder)
    # What a job finds decides how it ends: from each state that faults leave it runs again once.
    before, undisturbed = workshop.state(folder), workshop.forked(job, folder, shim=shim)
    again = {before: list(_ended_well(job, folder, expected, undisturbed))}
    tried, survived, problems = Counter[int](), 0, []
    for mode, named in enumerate(MODES):
        for n in workshop.spread(undisturbed.operations[mode], sample):
            if (trial := (job.name, mode, n)) not in log:
                workshop.given(job, whole, folder)
                ended = workshop.forked(job, folder, shim=shim, mode=mode, failing_at=n)
                found = list(_after_fault(job, folder, expected, ended, again, killed=mode == KILLED))
                log.note(trial, [ended.status, found])
            status, found = log[trial]
            tried[mode] += 1
            survived += status == 0
            problems += [f"{job.name}, {named}, operation {n}: {problem}" for problem in found]
    numbers = " | ".join(str(tried[mode]) for mode in range(len(MODES)))
    print(f"| {job.name} | {numbers} | {survived} | {len(problems)} |", flush=True)
    return problems


def _after_fault(
    job: Job, folder: Path, expected: dict, ended: Ended, again: dict[str, list[str]], *, killed: bool
) -> Iterator[str]:
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
    if (state := workshop.state(folder, ended.pid)) not in again:
        again[state] = list(_ended_well(job, folder, expected, workshop.forked(job, folder)))
    yield from (f"run again: {problem}" for problem in again[state])


def _ended_well(job: Job, folder: Path, expected: dict, ended: Ended) -> Iterator[str]:
    """What should not be after an undisturbed run."""
    if ended.status:
        yield f"status {ended.status}: {ended.errors[-2000:]}"
    elif (now := workshop.written(job, folder)) != expected:
        yield f"it differs: {', '.join(name for name in expected if now.get(name) != expected[name])}"
    elif left := workshop.leftovers(job, folder):
        yield f"something is left: {', '.join(path.name for path in left)}"


def flip_everywhere(
    job: Job, whole: Path, folder: Path, log: Log, each: int, bare: bool, seed: int
) -> list[str]:
    """Flip bits in every file that a job reads; print a row, and return what should not be."""
    expected = workshop.written(job, whole)
    files = sorted({path for pattern in FLIPPED[job.name] for path in whole.glob(pattern) if path.is_file()})
    if bare:
        files = [file for file in files if file.name != "SHA256SUMS" and file.suffix != ".sha256"]
    outcomes, problems = Counter[str](), []
    for file in files:
        name = str(file.relative_to(whole))
        chance = random.Random(f"{seed} {job.name} {name}")
        content = file.read_bytes()
        for _ in range(each):
            at, bit = chance.randrange(len(content)), chance.randrange(8)
            if (trial := (job.name, name, at, bit)) not in log:
                workshop.given(job, whole, folder)
                (folder / name).unlink()  # it is a link to the whole one
                (folder / name).write_bytes(flipped(content, at, bit))
                if bare:
                    for path in [*folder.rglob("SHA256SUMS"), *folder.rglob("*.sha256")]:
                        path.unlink()
                ended = workshop.forked(job, folder)
                if ended.status == 0:
                    outcome = UNCHANGED if workshop.written(job, folder) == expected else SILENT
                else:
                    outcome = REFUSED if ended.refused_in_one_line else BADLY
                log.note(trial, [outcome, ended.errors[-1500:] if outcome == BADLY else ""])
            outcome, said = log[trial]
            outcomes[outcome] += 1
            if outcome == BADLY or (outcome == SILENT and not bare):
                problems.append(f"{job.name}, {name}, byte {at}, bit {bit}: {outcome} {said}")
    numbers = " | ".join(str(number) for number in (outcomes.total(), *(outcomes[one] for one in OUTCOMES)))
    print(f"| {job.name} | {len(files)} | {numbers} |", flush=True)
    return problems


def flipped(content: bytes, at: int, bit: int) -> bytes:
    """The same but for one bit."""
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


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
