"""A small study, job by job. Its jobs run in forked processes, by the thousand: imports are paid once.

Each job reads files of earlier ones and writes its own. What it writes undisturbed is what it must write
after any fault, but for times.
"""

import contextlib
import ctypes
import gc
import hashlib
import json
import os
import runpy
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from helpers import ROOT, write_backbone

MODES = ("the disk is full", "the disk fails", "permission is denied", "killed")
"""Of the shim, in its order."""
KILLED = MODES.index("killed")
SECONDS = 600
"""A job that takes longer hangs."""
TIMES = {"finished", "first_finished", "last_finished", "log", "load_before", "contention", "time_ms"}
"""Keys of JSON files that differ between two undisturbed runs (losses are averaged since the last resume)."""
NUMBERS = ("time", "iqr", "first_half", "second_half", "rounds")
DATASET = "reviews"
ANYWHERE = {"rounds": 5, "most_rounds": 50, "precision": 0.9, "unsteady": 1e6, "others": 1e6, "lengths": 2}
TRAINING = {"epochs": 1, "batch_size": 16, "checkpoint_every": 0.5, "precision": "fp32", "threads": 1}
SECTION = {"files": {"train": "reviews.csv"}, "text": "text", "label": "label", "held_out": 0.4}


@dataclass(frozen=True)
class Job:
    """A job of the workflow, or a command."""

    name: str
    run: Callable[[], None]
    reads: tuple[str, ...]
    """Paths that it is given; folders with all that is in them."""
    writes: tuple[str, ...]
    """Paths that it makes."""
    timed: bool = False
    """Whether what it writes are times."""
    once: bool = False
    """Whether it refuses to run again where it has written."""


def command(*arguments: str) -> Callable[[], None]:
    """A ``pipeops`` command."""

    def run() -> None:
        from pipeops import cli

        sys.argv = ["pipeops", *arguments]
        cli.main()

    return run


def script(name: str, **given: Any) -> Callable[[], None]:
    """A script of the workflow, with what Snakemake would give it."""

    def run() -> None:
        about = SimpleNamespace(log=["logs/job.log"], **given)
        runpy.run_path(str(ROOT / f"workflow/scripts/{name}.py"), init_globals={"snakemake": about})

    return run


def printed(run: Callable[[], None], path: str) -> Callable[[], None]:
    """The same with its standard output in a file, which gets its name where the run succeeds."""

    def to_file() -> None:
        from pipeops.errors import errors_in_one_line

        with errors_in_one_line():
            os.dup2(os.open(f".{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 1)
        try:
            run()
        except SystemExit as end:
            if end.code:
                raise
        with errors_in_one_line():
            Path(f".{path}.tmp").rename(path)

    return to_file


def classify() -> None:
    """The script of a deployed folder."""
    sys.argv = ["classify.py", "--json", "w1 w2 w3"]
    runpy.run_path("deployed/classify.py", run_name="__main__")


class Named(dict):
    """Snakemake's named files: by key and by attribute."""

    __getattr__ = dict.__getitem__


def jobs() -> dict[str, Job]:
    """All of them, each after those that it reads from."""
    results, base = "results", "results/backbones/base"
    rows, data = f"{results}/rows/{DATASET}", f"{results}/data/{DATASET}"
    model, onnx, answers, curves = (
        lambda pipeline, kind=kind, end=end: f"{results}/{kind}/{DATASET}/{pipeline}{end}"
        for kind, end in (
            ("models", "/seed1"),
            ("onnx", "/seed1"),
            ("answers", "/seed1.parquet"),
            ("curves", ""),
        )
    )
    prices = f"{results}/prices/{DATASET}"

    def train(operator: str, epochs: int = 1, **others: Any) -> Job:
        parent = [] if operator == "O" else ["--parent", model("O")]
        return Job(
            f"train {operator}",
            command(
                "train",
                operator,
                *parent,
                "--backbone",
                base,
                "--data",
                f"{data}/train.parquet",
                "--output",
                model(operator),
                "--seed",
                "1",
                "--settings",
                json.dumps({"training": TRAINING | {"epochs": epochs}, **others}),
            ),
            (base, data, *([model("O")] if parent else [".pipeops"])),
            (model(operator),),
        )

    def tokenise(split: str) -> Job:
        return Job(
            f"tokenise {split}",
            command(
                "tokenise",
                DATASET,
                split,
                "--backbone",
                base,
                "--rows",
                f"{rows}/{split}.parquet",
                "--max-length",
                "12",
                "--output",
                f"{data}/{split}.parquet",
            ),
            (base, rows),
            (f"{data}/{split}.parquet", f"{data}/{split}.parquet.sha256"),
        )

    def measured(pipeline: str) -> list[Job]:
        files = (answers(pipeline), f"{answers(pipeline)}.sha256")
        priced = tuple(f"{prices}/{pipeline}{end}" for end in (".csv", ".json", ".csv.sha256"))
        pooled = tuple(f"{curves(pipeline)}{end}" for end in (".csv", ".exits.csv", ".json", ".csv.sha256"))
        return [
            Job(
                f"export {pipeline}",
                command("export", model(pipeline), "--output", onnx(pipeline)),
                (model(pipeline),),
                (onnx(pipeline),),
            ),
            Job(
                f"evaluate {pipeline}",
                command(
                    "evaluate",
                    onnx(pipeline),
                    "--data",
                    f"{data}/validation.parquet",
                    "--output",
                    answers(pipeline),
                    "--dataset",
                    DATASET,
                    "--pipeline",
                    pipeline,
                    "--seed",
                    "1",
                ),
                (onnx(pipeline), data),
                files,
            ),
            Job(
                f"price {pipeline}",
                command(
                    "price",
                    "--backbone",
                    base,
                    "--lengths",
                    f"{data}/validation.parquet",
                    "--operators",
                    pipeline,
                    "--output",
                    f"{prices}/{pipeline}.csv",
                    "--settings",
                    json.dumps({"prices": ANYWHERE}),
                ),
                (base, data),
                priced,
                timed=True,
            ),
            Job(
                f"curves {pipeline}",
                script(
                    "curves",
                    input=Named(prices=priced[0], answers=[answers(pipeline)]),
                    output=Named(csv=pooled[0], exits=pooled[1], details=pooled[2]),
                    params=Named(
                        seeds=[1],
                        allow_other_cpu=True,
                        metric="accuracy",
                        rule_of_exits={
                            "confidence": "max_probability",
                            "thresholds": [0, 0.6, 1.01],
                            "patiences": None,
                        },
                    ),
                    wildcards=Named(dataset=DATASET, pipeline=pipeline),
                ),
                (*files, *priced),
                (*pooled, curves(pipeline)),
            ),
        ]

    table = {form: f"{results}/table2.{form}" for form in ("csv", "md", "html", "json")}
    figure = {form: f"{results}/figures/pareto.{form}" for form in ("png", "pdf")}
    analysed = [f"{curves(pipeline)}.csv" for pipeline in ("O", "E")]

    def analysis(name: str, target: str, shown: list[str], output: Mapping[str, str]) -> Job:
        return Job(
            name,
            script(
                "analyse",
                input=Named(curves=analysed),
                output=Named(output),
                params=Named(target=target, parameters={}, shown=shown, rule_of_exits=None),
            ),
            (f"{results}/curves",),
            (*output.values(), *([f"{output['csv']}.sha256"] if "csv" in output else [])),
        )

    deployed = "deployed"
    made = [
        Job(
            "init",
            command("init", "reviews.csv", "tiny", "--output", "study.yaml"),
            ("reviews.csv",),
            ("study.yaml",),
            once=True,
        ),
        Job(
            "rows",
            command("rows", DATASET, "--output", rows, "--settings", json.dumps(SECTION)),
            ("reviews.csv",),
            (rows,),
        ),
        Job("backbone", command("backbone", "foreign", "--output", base), ("foreign",), (base,)),
        Job(
            "pretrain",
            command(
                "backbone",
                "tiny",
                "--rows",
                f"{rows}/train.parquet",
                "--max-length",
                "12",
                "--output",
                "pretrained",
                "--settings",
                '{"examples": 32, "epochs": 1, "batch_size": 16, "threads": 1}',
            ),
            (rows,),
            ("pretrained",),
        ),
        Job(
            "vocabulary",
            command(
                "vocabulary",
                DATASET,
                "--backbone",
                base,
                "--rows",
                f"{rows}/train.parquet",
                "--output",
                "pruned",
            ),
            (base, rows),
            ("pruned",),
        ),
        tokenise("train"),
        tokenise("validation"),
        train("O", epochs=2),
        train("E"),
        train("C", costeff={"heads": 3, "ffn": 8, "rank": 8, "teacher": "fine-tuned"}),
        *measured("O"),
        *measured("E"),
        Job(
            "check",
            command(
                "check",
                onnx("E"),
                "--original",
                onnx("O"),
                "--data",
                f"{data}/validation.parquet",
                "--answers",
                answers("E"),
                "--prices",
                f"{prices}/E.csv",
                "--output",
                "checked.csv",
                "--settings",
                json.dumps({"check": {"thresholds": 1, "examples": 3, "tolerance": 1e6}, "prices": ANYWHERE}),
            ),
            (f"{results}/onnx", data, f"{results}/answers", prices),
            ("checked.csv", "checked.json"),
            timed=True,
        ),
        analysis("table", "pipeops.analysis.tables:table2", ["O"], table),
        analysis("figure", "pipeops.analysis.figures:pareto", ["O", "E"], figure),
        Job(
            "deploy",
            command("deploy", "ELQ", deployed, "--dataset", DATASET, "--seed", "1"),
            (results,),
            (deployed,),
        ),
        Job(
            "score",
            printed(command("score", deployed, "--data", "reviews.csv", "--json"), "scored.json"),
            (deployed, "reviews.csv"),
            ("scored.json",),
        ),
        Job("classify.py", printed(classify, "said.txt"), (deployed,), ("said.txt",)),
    ]
    return {job.name: job for job in made}


def write_sources(folder: Path) -> None:
    """A CSV of one's own and a foreign encoder."""
    write_backbone(folder / "foreign", layers=2)
    random = np.random.default_rng(0)
    words = [[f"w{i}" for i in random.integers(0, 57, random.integers(2, 8))] for _ in range(80)]
    labels = ["good" if int(row[0][1:]) < 28 else "bad" for row in words]
    pd.DataFrame({"text": [" ".join(row) for row in words], "label": labels}).to_csv(
        folder / "reviews.csv", index=False
    )


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    status: int
    """Of its exit; minus the signal that killed it."""
    errors: str
    """What it said on standard error."""
    operations: tuple[int, ...] = ()
    """How many could have failed, by the shim's mode."""
    pid: int = 0
    """Of its process."""

    @property
    def refused_in_one_line(self) -> bool:
        """Whether it said what is wrong as people should be told."""
        lines = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        return self.status == 1 and len(lines) == 1 and "Traceback" not in self.errors


IMPORTED = (
    *("matplotlib.backends.backend_pdf", "rich.markdown"),
    *("pipeops.analysis.figures", "pipeops.analysis.tables"),
    *("pipeops.cli", "pipeops.measuring.commands", "pipeops.measuring.evaluate"),
    *("pipeops.models.encoders.post_norm", "pipeops.onnx.encoders.post_norm"),
    *("pipeops.operators.costeff", "pipeops.operators.early_exit", "pipeops.operators.finetuning"),
    *("pipeops.study.deploying", "pipeops.study.scoring", "pipeops.study.starting"),
    *("pipeops.training.gpus", "pipeops.training.job"),
)


def import_all() -> None:
    """Everything that a job imports, and asks of its machine, once for all of them."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in IMPORTED:
        import_module(name)
    from pipeops import provenance
    from pipeops.measuring import rounds
    from pipeops.training import pretraining

    # What is measured, or how good a model is, is never looked at.
    rounds.WARM_RUNS, rounds.TIMED_RUNS = 0, 1
    pretraining.TINY_OF_OWN_ARCHITECTURE = replace(
        pretraining.TINY_OF_OWN_ARCHITECTURE, layers=1, hidden_size=16, ffn_size=24, vocab_size=320
    )
    for name in ("version", "_commit"):
        setattr(provenance, name, cache(getattr(provenance, name)))
    provenance.provenance()
    gc.collect()
    gc.freeze()  # else every job's garbage collector looks through all that was imported


def forked(
    job: Job, folder: Path, *, shim: ctypes.CDLL | None = None, mode: int = 0, failing_at: int = 0
) -> Ended:
    """Run a job in a process of its own, within ``folder``; its temporary files go there too."""
    said = folder.with_name(f"{folder.name}.err")
    counted, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(counted)
        status = 99
        try:
            for number, path in ((1, os.devnull), (2, said)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
            os.chdir(folder)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
            if shim:
                shim.fault_watch(str(folder).encode())
                shim.fault_arm(mode, failing_at)
            job.run()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
        finally:
            operations = [shim.fault_count(one) for one in range(len(MODES))] if shim else []
            sys.stderr.flush()
            os.write(tell, json.dumps(operations).encode())
            os._exit(status)
    os.close(tell)
    ended, slices = os.pidfd_open(pid), range(SECONDS)
    # In slices: the time for which all of this is stopped (SIGSTOP) does not count.
    if not any(select.select([ended], [], [], 1)[0] for _ in slices):
        os.kill(pid, signal.SIGKILL)
    _, state = os.waitpid(pid, 0)
    operations = json.loads(os.read(counted, 100) or b"[]")
    for descriptor in (ended, counted):
        os.close(descriptor)
    return Ended(os.waitstatus_to_exitcode(state), said.read_text(errors="replace"), tuple(operations), pid)


def made(folder: Path, *, interrupted: bool = False) -> Path:
    """All jobs run once, undisturbed, each from what the ones before it wrote, unless that was done before.

    Args:
        folder: where they run.
        interrupted: whether the state of an interrupted training of O is there too.
    """
    if (folder / "made").exists():
        return folder
    _empty(folder)
    write_sources(folder)
    for job in jobs().values():
        ended = forked(job, folder)
        assert ended.status == 0, f"{job.name}: {ended.errors}"
    if interrupted:
        interrupt(jobs()["train O"], folder)
    (folder / "made").touch()
    return folder


def interrupt(job: Job, whole: Path, *, at: int = 2) -> None:
    """Begin a training in the whole study and end it by SIGTERM in this step: its state is left there."""

    def run() -> None:
        from pipeops.training.trainer import Termination

        on_step_end = Termination.on_step_end

        def asked(self: Termination, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step == at:
                os.kill(os.getpid(), signal.SIGTERM)
            on_step_end(self, args, state, control, **others)

        Termination.on_step_end = asked  # type: ignore[method-assign]
        job.run()

    ended = forked(replace(job, run=run), whole)
    assert ended.status == 128 + signal.SIGTERM, ended.errors


def given(job: Job, whole: Path, folder: Path) -> Path:
    """A folder with what a job reads, as links: whoever changes a file must copy it first."""
    _empty(folder)
    for name in job.reads:
        source, target = whole / name, folder / name
        if not source.exists():  # the state of a training that ended
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
        elif not target.exists():
            os.link(source, target)
    return folder


def _empty(folder: Path) -> None:
    """Nothing but the folders that a job may expect."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("tmp", "logs"):
        (folder / name).mkdir(parents=True)


def state(folder: Path, pid: int = 0) -> str:
    """Digest of all that lies in a folder: paths, kinds, permissions and bytes, but for times.

    Args:
        folder: what a process left.
        pid: of that process: files that bear its number, in their names or in them, are as any ended one's.
    """
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder)).replace(f".{pid}.tmp", ".0.tmp")
        content = path.read_bytes() if path.is_file() else b""
        for ours, anyone in ((f".{pid}.tmp", ".0.tmp"), (f"{pid} on ", "0 on ")):
            content = content.replace(ours.encode(), anyone.encode())
        found.update(f"{name}\0{path.stat().st_mode}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def written(job: Job, folder: Path) -> dict[str, Any]:
    """What a job has written under final names, but for times, by path."""
    found: dict[str, Any] = {}
    for name in job.writes:
        path = folder / name
        files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
        for file in files:
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
                found[str(file.relative_to(folder))] = content(file, timed=job.timed)
    return found


def leftovers(job: Job, folder: Path) -> list[Path]:
    """What lies beside what a job has written, under other names."""
    places = {folder / name for name in job.writes} | {(folder / name).parent for name in job.writes}
    return sorted(path for place in places if place.is_dir() for path in place.glob(".*.tmp"))


def content(path: Path, *, timed: bool) -> Any:
    """Of one file, what two undisturbed runs have alike. Digests must be those of the files beside them."""
    if path.name == "SHA256SUMS" or path.suffix == ".sha256":
        names = []
        for line in path.read_text().splitlines():
            digest, name = line.split("  ")
            file = path.with_name(name)
            if file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                return f"not the digest of {name}"
            names.append(name)
        return names
    if path.suffix == ".json":
        try:
            return without_times(json.loads(path.read_text()), timed=timed)
        except ValueError:
            return "no JSON"
    if timed and path.suffix == ".csv":
        table = pd.read_csv(path)
        kept = [name for name in table if not any(name.startswith(number) for number in NUMBERS)]
        return table[kept].to_csv()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(value: Any, *, timed: bool) -> Any:
    """A parsed JSON without times; of what is timed no number stays."""
    if isinstance(value, dict):
        return {key: without_times(of, timed=timed) for key, of in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(of, timed=timed) for of in value]
    return None if timed and isinstance(value, float) else value


def compiled(folder: Path) -> Path | None:
    """The shim, where there is a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    import subprocess

    subprocess.run([compiler, "-O2", "-Wall", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    return library


@contextlib.contextmanager
def scratch(kept: Path | None = None) -> Iterator[Path]:
    """A folder for whole and broken studies: one that stays, or one that is removed."""
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def spread(count: int, sample: int | None) -> Sequence[int]:
    """1 to ``count``, or ``sample`` of them, evenly, the first and the last among them."""
    if sample is None or sample >= count:
        return range(1, count + 1)
    return sorted({round(1 + (count - 1) * i / max(1, sample - 1)) for i in range(sample)})
