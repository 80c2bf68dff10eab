"""PipeOps beside other engines: one trained model, the same number of threads, in turns.

python benchmarks/engines.py results/sst2-minilm --dataset sst2 --output engines
python benchmarks/engines.py results/sst2-minilm --dataset sst2 --output engines --parts times --lengths 512

The folder is that of a study with O and E. Files are made once and kept in the output folder. Every engine is
open in a process of its own. In a round each runs in turn, untimed at first, until its caches are warm. What
was measured is kept in engines.json. A later call measures what it names anew: of times the whole column, so
that all times of a column are of one run.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from common import introduce, positive, turns
from engine_kinds import ENGINES, POLICY, Engine, Sources
from rich.console import Console
from workers import SPINNING, Worker, classes, made, milliseconds, milliseconds_each, milliseconds_each_random

from pipeops.data.tokenised import load_tokenised
from pipeops.errors import PipeOpsError, errors_in_one_line
from pipeops.files import replaced
from pipeops.integrity import digest
from pipeops.models.weights import WEIGHTS
from pipeops.provenance import provenance, versions, write_json
from pipeops.reading import reading
from pipeops.revisions import EXPORT
from pipeops.text import markdown_table

BASE = "PipeOps int8"
"""What times are divided by. It is always among the engines."""
PARTS = ("accuracy", "costs", "times")
SENTENCES = "sentences"
"""The column of real inputs, one by one."""
A_TURN = 16
"""Inputs of a turn, where each has its own length."""
WARM_UP = 2
"""Rounds that are run first and not counted."""
PACKAGES = ("openvino", "nncf", "ctranslate2", "torch", "transformers", "onnxruntime")
COSTS = {
    "load_s": "load and first answer, s",
    "memory_mib": "memory for it, MiB",
    "file_mib": "files, MiB",
}
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    args = arguments()
    os.environ |= SPINNING | {"OMP_NUM_THREADS": str(args.threads)}
    introduce(console, threads=args.threads)
    if args.threads > (cores := os.cpu_count() or 1):
        console.print(f"{args.threads} threads on {cores} cores: every engine waits for itself")
    sources = sources_of(args)
    columns = columns_of(args, sources.shape.max_length)
    findings = Findings(args.output, threads=args.threads)
    folders = make_all(chosen(args.engines), sources, findings)
    if "accuracy" in args.parts:
        measure_accuracy(folders, sources, findings)
    if "costs" in args.parts:
        measure_costs(folders, sources, findings, starts=args.starts)
    if "times" in args.parts:
        measure_times(folders, sources, findings, columns, rounds=args.rounds)
    console.print(findings.write_tables())
    if args.engines and set(folders) == {BASE} and findings.left_out:
        raise PipeOpsError("--engines: none of those named can be run; the lines above say why")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="of a study with O and E")
    parser.add_argument("--dataset", default="sst2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="folder for files and findings")
    parser.add_argument(
        "--engines", nargs="+", default=[], help="how names begin, such as OpenVINO; default: all"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--lengths", type=positive, nargs="*", default=[8, 32, 128, 512], help="tokens, batch 1"
    )
    parser.add_argument(
        "--varied", nargs="*", default=["96-160", "384-512"], help="tokens, each input with its own; batch 1"
    )
    parser.add_argument("--batches", type=positive, nargs="*", default=[8, 32], help="inputs at a time")
    parser.add_argument("--batch-length", type=positive, default=32, help="their tokens")
    parser.add_argument("--no-sentences", action="store_true", help="leave out real inputs")
    parser.add_argument("--rounds", type=positive, default=30)
    parser.add_argument("--starts", type=positive, default=3, help="processes whose median load time counts")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument(
        "--within", type=float, default=1.0, help="points of accuracy that the policy may cost"
    )
    return parser.parse_args()


def sources_of(args: argparse.Namespace) -> Sources:
    """The files of the study that engines are made from."""
    single, exits = (args.results / f"models/{args.dataset}/{p}/seed{args.seed}" for p in ("O", "E"))
    training, validation = (
        args.results / f"data/{args.dataset}/{name}.parquet" for name in ("train", "validation")
    )
    return Sources(single, exits, training, validation, args.within)


def chosen(beginnings: Sequence[str]) -> dict[str, Engine]:
    """The engines whose names begin like this, all without any; the base is always among them.

    Raises:
        PipeOpsError: no name begins so.
    """
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in ENGINES):
            raise PipeOpsError(f"--engines: none begins with '{beginning}'; there are {', '.join(ENGINES)}")
    every = tuple(beginnings) or ("",)
    return {name: engine for name, engine in ENGINES.items() if name == BASE or name.startswith(every)}


class Column(NamedTuple):
    """What is timed: so many inputs at a time, all of one length or each of its own."""

    batch: int
    shortest: int
    longest: int


def columns_of(args: argparse.Namespace, longest: int) -> dict[str, Column]:
    """What is timed, by the column's name; real inputs have their own lengths."""
    options = {
        "--lengths": {f"1 x {length}": Column(1, length, length) for length in args.lengths},
        "--varied": {f"1 x {span}": Column(1, *_ends(span)) for span in args.varied},
        "--batch-length": {
            f"{batch} x {args.batch_length}": Column(batch, args.batch_length, args.batch_length)
            for batch in args.batches
        },
    }
    for option, columns in options.items():
        if too_long := [column.longest for column in columns.values() if column.longest > longest]:
            raise PipeOpsError(f"{option}: {too_long[0]} tokens, the model takes at most {longest}")
    columns = options["--lengths"] | options["--varied"] | options["--batch-length"]
    return columns if args.no_sentences else columns | {SENTENCES: Column(1, 0, 0)}


def _ends(span: str) -> tuple[int, int]:
    ends = [int(end) if end.isdecimal() else 0 for end in span.split("-")]
    if len(ends) != 2 or not 0 < ends[0] < ends[1]:
        raise PipeOpsError(f"--varied: '{span}' is no span of tokens; give one such as 96-160")
    return ends[0], ends[1]


class Findings:
    """What was measured, kept in a file after every step."""

    def __init__(self, output: Path, *, threads: int) -> None:
        self.output, self.threads = output, threads
        self._path = output / "engines.json"
        kept: dict[str, Any] = {}
        if self._path.exists():
            with reading(self._path, again="delete it, or name another --output"):
                kept = json.loads(self._path.read_text())
                if any(BASE not in times for times in kept["times"].values()):
                    raise ValueError(f"times without {BASE}")
        self.model: str | None = kept.get("model")
        """What files are made from: digests of both checkpoints, and how they are exported."""
        if kept.get("threads", threads) != threads:
            raise PipeOpsError(
                f"{self._path}: measured with {kept['threads']} threads; name another --output"
            )
        self.engines: dict[str, dict[str, float]] = kept.get("engines", {})
        self.times: dict[str, dict[str, list[float]]] = kept.get("times", {})
        self.left_out: dict[str, str] = {}
        self.policies: dict[str, dict[str, float]] = {}

    def are_of(self, model: str) -> None:
        """Say which model is measured.

        Raises:
            PipeOpsError: what is kept is of another.
        """
        if self.model not in (None, model):
            raise PipeOpsError(f"{self._path}: measured with another model; name another --output")
        self.model = model

    def leave_out(self, name: str, why: str) -> None:
        """Say that an engine is not measured, and why."""
        self.left_out[name] = why
        console.print(f"skipped: {name}: {why}")

    def add(self, name: str, **found: float) -> None:
        """Keep figures of an engine."""
        self.engines.setdefault(name, {}).update(found)
        self.save()
        console.print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))

    def save(self) -> None:
        """Write what is known."""
        write_json(
            self._path,
            {
                "threads": self.threads,
                "model": self.model,
                "engines": self.engines,
                "times": self.times,
                "skipped": self.left_out,
                "policies": self.policies,
                "provenance": provenance() | {"engines": versions(*PACKAGES)},
            },
        )

    def write_tables(self) -> str:
        """Write engines.csv and engines.md; return the latter."""
        rows = list(self._rows())
        with replaced(self.output / "engines.csv") as path:
            pd.DataFrame(rows).to_csv(path, index=False)
        columns = list(self.times)
        times = {(row["engine"], row["column"]): f"{row['ms']:.2f} ({row['ratio']:.2f})" for row in rows}
        measured = [name for name in ENGINES if name in self.engines or (name, *columns[:1]) in times]
        faster = [
            [
                name,
                _cell(self.engines.get(name, {}), "accuracy", 2),
                *(times.get((name, c), "-") for c in columns),
            ]
            for name in measured
        ]
        costs = [[name, *(_cell(self.engines.get(name, {}), key, 1) for key in COSTS)] for name in measured]
        page = [
            f"Milliseconds; in brackets over those of {BASE}. Medians of rounds, {self.threads} threads.",
            markdown_table(["engine", "accuracy, %", *columns], faster),
            markdown_table(["engine", *COSTS.values()], costs),
            *(
                f"- {precision} policy: threshold {found['threshold']:g}, accuracy {found['accuracy']:.2%}, "
                f"leaves after layer {found['mean_exit_layer']:.2f} on average"
                for precision, found in self.policies.items()
            ),
            *(f"- skipped: {name}: {why}" for name, why in self.left_out.items()),
        ]
        text = "\n\n".join(page[:3]) + "\n\n" + "\n".join(page[3:])
        with replaced(self.output / "engines.md") as path:
            path.write_text(text.rstrip() + "\n")
        return text

    def _rows(self):
        for column, times in self.times.items():
            base = np.array(times[BASE])
            for name, values in times.items():
                taken = np.array(values)
                low, high = np.percentile(taken, [25, 75])
                yield {
                    "engine": name,
                    "column": column,
                    "ms": np.median(taken),
                    "ratio": np.median(taken / base),
                    "iqr_ms": high - low,
                    "rounds": len(taken),
                }


def _cell(found: Mapping[str, float], key: str, digits: int) -> str:
    return f"{found[key]:.{digits}f}" if key in found else "-"


def make_all(engines: Mapping[str, Engine], sources: Sources, findings: Findings) -> dict[str, Path]:
    """Make the files of engines, unless they are there; return the folder of each that can be run."""
    checkpoints = "".join(digest(folder / WEIGHTS) for folder in (sources.single, sources.exits))
    version = f"{checkpoints[:12]}-{checkpoints[64:76]}-{EXPORT}"
    findings.are_of(version)
    folders: dict[str, Path] = {}
    for name, engine in engines.items():
        folder = findings.output / "files" / version / engine.made
        if why := engine.missing or made(name, sources, folder):
            findings.leave_out(name, why)
        else:
            folders[name] = folder
            if (policy := folder / POLICY).exists():
                findings.policies |= json.loads(policy.read_text())
    if BASE not in folders:
        raise PipeOpsError(f"{BASE}: {findings.left_out[BASE]}")
    return folders


def measure_accuracy(folders: Mapping[str, Path], sources: Sources, findings: Findings) -> None:
    """How often each engine is right, one validation example at a time."""
    split = load_tokenised(sources.validation)
    for name, folder in folders.items():
        try:
            with Worker(name, sources, folder, findings.threads) as worker:
                said = worker.do(classes, split.input_ids)
        except PipeOpsError as error:
            findings.leave_out(name, str(error))
        else:
            findings.add(name, accuracy=float(100 * (said == split.label_ids).mean()))


def measure_costs(folders: Mapping[str, Path], sources: Sources, findings: Findings, *, starts: int) -> None:
    """What opening each engine costs: time and memory in processes of its own, and its files."""
    for name, folder in folders.items():
        costs: list[dict[str, float]] = []
        try:
            for _ in range(starts):
                with Worker(name, sources, folder, findings.threads) as worker:
                    costs.append(worker.costs)
        except PipeOpsError as error:
            findings.leave_out(name, str(error))
            continue
        files = ENGINES[name].deployed(sources, folder)
        found = {key: float(np.median([one[key] for one in costs])) for key in costs[0]}
        findings.add(name, **found, file_mib=sum(path.stat().st_size for path in files) / 2**20)


@contextmanager
def working(folders: Mapping[str, Path], sources: Sources, findings: Findings) -> Iterator[dict[str, Worker]]:
    """Open all engines, by name; those that cannot be are left out of the findings."""
    with ExitStack() as opened:
        workers: dict[str, Worker] = {}
        for name, folder in folders.items():
            try:
                workers[name] = opened.enter_context(Worker(name, sources, folder, findings.threads))
            except PipeOpsError as error:
                findings.leave_out(name, str(error))
        yield workers


def measure_times(
    folders: Mapping[str, Path],
    sources: Sources,
    findings: Findings,
    columns: Mapping[str, Column],
    *,
    rounds: int,
) -> None:
    """Let all engines run in turns, column by column."""
    split, words = load_tokenised(sources.validation), sources.shape.vocab_size
    with working(folders, sources, findings) as workers:
        for column, (batch, shortest, longest) in columns.items():
            able = {name: one for name, one in workers.items() if batch == 1 or ENGINES[name].batches}
            rng = np.random.default_rng(longest)
            times: dict[str, list[float]] = {name: [] for name in able}
            for names in turns(list(able), WARM_UP + rounds):
                given: Any = rng.integers(0, words, (batch, longest))
                task = milliseconds
                if column == SENTENCES:
                    given = [split.input_ids[i] for i in rng.integers(0, len(split), A_TURN)]
                    task = milliseconds_each
                elif shortest < longest:
                    given = [rng.integers(0, words, n) for n in rng.integers(shortest, longest + 1, A_TURN)]
                    task = milliseconds_each_random
                for name in names:
                    times[name].append(workers[name].do(task, given))
            findings.times[column] = {name: values[WARM_UP:] for name, values in times.items()}
            findings.save()
            console.print(f"timed: {column}")


if __name__ == "__main__":
    with errors_in_one_line():
        main()
