"""Random mutations of the shipped configurations: accepted ones plan, refused ones are told shortly.

``python tests/random_configs.py 2000 10`` tries 2,000 of each, lets Snakemake plan ten accepted ones of each,
and prints the figures. Each mutation is known by its number.
"""

import copy
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeops.errors import PipeOpsError
from pipeops.pipeline import Pipeline
from pipeops.study import jobs
from pipeops.study.analyses import ANALYSES, FORMS, asked_for
from pipeops.study.config import Config, load_config, read_study
from pipeops.study.planning import inference_memory_mb, plan, training_memory_mb, training_minutes

ROOT = Path(__file__).parents[1]
SHIPPED = (ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml")))
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, -1, 7, 64, 1000, 10**6, 10**9, 10**12, 2**32, 2**64, 10**400),
    *(0.5, 0.1, 1.5, -0.5, 1e-9, 1e300, float("inf"), float("-inf"), float("nan"), "1", "0.5", "null", "inf"),
    *(
        "",
        " ",
        "O",
        "D",
        "E",
        "DE",
        "PE",
        "DPE",
        "EDP",
        "V",
        "VDE",
        "VCLQ",
        "EV",
        "DD",
        "CE",
        "QL",
        "OE",
        "x" * 5000,
        "é\u202e",
        "a\nb",
        "\0",
    ),
    *(
        "tiny",
        "alternate",
        "mean",
        "first",
        "patience",
        "entropy",
        "auto",
        "cpu",
        "bf16",
        "train",
        "validation",
    ),
    *("sst2", "SST-2", "mrpc", "stsb", "generated-sentiment", "generated-paraphrase", "qqp"),
    *(
        "../x",
        "/etc",
        "/etc/passwd",
        "/proc/self",
        "~",
        "~root",
        ".",
        "..",
        "a b",
        "a'b",
        'a"b',
        "-rf",
        "--help",
    ),
    *(
        "$(touch pwned)",
        "`touch pwned`",
        "; touch pwned",
        "| touch pwned",
        "{wildcard}",
        "<results>",
        "%s",
        "*",
    ),
    *(
        "https://example.org/x",
        "file:///etc/passwd",
        "owner/name",
        "a/b/c",
        "logs",
        "results",
        "logs/../results",
    ),
    *(
        [],
        [1],
        [1, 1],
        ["DE"],
        ["O", "D"],
        ["VE", "VPQ"],
        [[]],
        [None],
        list(range(2000)),
        ["x"] * 50,
        [float("nan")],
        [[["x"]]],
    ),
    *(
        {},
        {"x": 1},
        {1: 2},
        {"train": "x.csv"},
        {"D": {"epochs": 2}},
        {"V": {"epochs": 2}},
        {"size": 100},
        {"Z": {}},
        {"DE": {"epochs": 2}},
        {"a": {}},
    ),
)
NAMES = (
    "epoch",
    "results",
    "seeds",
    "Training",
    "x",
    "../x",
    "a\nb",
    "",
    "training",
    "operators",
    "vocabulary",
    "V",
    "C",
    "reviews",
)
SECONDS = 3.0
"""What a mutation may take."""


@dataclass
class Figures:
    """What became of the mutations."""

    told: Counter[str] = field(default_factory=Counter)
    """``accepted`` and ``refused``."""
    by_snakemake: Counter[Path] = field(default_factory=Counter)
    """How many accepted mutations of a configuration Snakemake planned too."""
    wrong: list[str] = field(default_factory=list)
    """What must not be: a traceback, a long or empty message, a slow one, something run or written."""
    slowest: float = 0.0
    """Seconds."""

    def __str__(self) -> str:
        return (
            f"{self.told.total()} mutations: {self.told['accepted']} accepted, {self.told['refused']} "
            f"refused, {len(self.wrong)} wrong; the slowest took {self.slowest:.2f} s; "
            f"{self.by_snakemake.total()} planned by Snakemake"
        )


def shipped(number: int) -> Path:
    """The configuration that a mutation changes."""
    return SHIPPED[number % len(SHIPPED)]


def mutated(number: int) -> str:
    """The text of a mutation: one to three changes of a shipped configuration, or of its text."""
    chance, path = random.Random(number), shipped(number)
    if chance.random() < 0.15:
        return _mutated_text(path.read_text(), chance)
    values = Config().model_dump(mode="json") if chance.random() < 0.5 else {}
    values |= copy.deepcopy(yaml.safe_load(path.read_text()))
    for _ in range(chance.randint(1, 3)):
        _mutate(values, chance)
    return yaml.safe_dump(values, allow_unicode=True)


def _mutate(values: Any, chance: random.Random) -> None:
    """Change one place of it, in place."""
    places = list(_places(values))
    if not places:
        return
    holder, key = chance.choice(places)
    change = chance.randrange(5)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[chance.choice(NAMES)] = copy.deepcopy(holder[key])
    elif change == 2 and isinstance(holder[key], list):
        holder[key] = [*holder[key], copy.deepcopy(chance.choice(VALUES))]
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield values, key
        if isinstance(value, dict) or (isinstance(value, list) and len(value) < 50):
            yield from _places(value)


def _mutated_text(text: str, chance: random.Random) -> str:
    """Text with some characters taken away, doubled or replaced."""
    for _ in range(chance.randint(1, 5)):
        at, length = chance.randrange(len(text)), chance.choice((1, 1, 5, 200))
        put = chance.choice(
            ("", text[at : at + length] * 2, "\0", "\t", "{", "[", ": ", "&a ", "*a", "!!x ", "é")
        )
        text = text[:at] + put + text[at + length :]
    return text


EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.mkdir", "os.rename")
_seen: list[str] | None = None


def _audit(event: str, arguments: tuple) -> None:
    """Python tells of whatever is run, made or opened."""
    if _seen is None:
        return
    writes = (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o1103
    )  # write, create, truncate
    if event in EVENTS or writes or event in ("os.remove", "os.symlink", "socket.connect"):
        _seen.append(f"{event} {arguments[0]!r}")


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[list[str]]:
    """While open, note whatever is run, written, deleted or connected to."""
    global _seen
    _seen = seen = []
    try:
        yield seen
    finally:
        _seen = None


def planned(path: Path) -> None:
    """Validate and plan as the Snakefile and `pipeops plan` do: command lines, files and resources."""
    study = read_study([path])
    results = study.pathvars.results
    files = [f"{results}/{one.path(form)}" for one in asked_for(study) for form in FORMS[one.kind]]
    for analysis in ANALYSES:
        analysis.parameters(study)
    for pipeline in study.trainings:
        jobs.train(study, pipeline)
        files += jobs.train_inputs(study, pipeline, study.datasets[0], "1").values()
    for pipeline in study.measured:
        jobs.price(study, pipeline.operators)
        files += [f"{results}/answers/{name}/{pipeline}/seed1.parquet" for name in study.datasets]
    jobs.backbone(study), jobs.check(study), jobs.rule_of_exits(study)
    assert all(
        ".." not in Path(file).relative_to(results).parts for file in files if file.startswith(results)
    )
    try:
        plan(study)
        inference_memory_mb(study)
        for pipeline in (Pipeline("O"), *study.trainings):
            training_memory_mb(study, pipeline), training_minutes(study, pipeline, study.datasets[0])
    except PipeOpsError as error:
        if "not known" not in str(error):  # a hub's model or data set is known once it is fetched
            raise
    # What Snakemake keeps of it, and the page of the study, must be the same study.
    assert load_config(study.model_dump(mode="json")) == study


def snakemake_plans(path: Path) -> str:
    """Dry-run the workflow; returns what it says where it fails, else nothing."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(path.parent)]
    command += ["--configfile", str(path), "--", "all"]
    ran = subprocess.run(command, capture_output=True, text=True)
    return (ran.stdout + ran.stderr).strip() or "exit status not 0" if ran.returncode else ""


def try_all(numbers: range, *, by_snakemake: int = 0) -> Figures:
    """Try mutations one by one; of each configuration Snakemake plans so many accepted ones too."""
    found = Figures()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        for number in numbers:
            path.write_text(mutated(number), encoding="utf-8", errors="surrogatepass")
            start, message = time.perf_counter(), None
            with watched() as seen:
                try:
                    planned(path)
                except PipeOpsError as error:
                    message = str(error)
                except BaseException as error:
                    found.wrong.append(f"{number}: {type(error).__name__}: {error}"[:300])
                    continue
            seconds = time.perf_counter() - start
            found.slowest = max(found.slowest, seconds)
            found.told["accepted" if message is None else "refused"] += 1
            if seen:
                found.wrong.append(f"{number}: {seen[:3]}")
            if seconds > SECONDS:
                found.wrong.append(f"{number}: took {seconds:.1f} s")
            if message is not None and not _is_short(message):
                found.wrong.append(f"{number}: {message!r}"[:300])
            if message is None and found.by_snakemake[shipped(number)] < by_snakemake:
                found.by_snakemake[shipped(number)] += 1
                if failed := snakemake_plans(path):
                    found.wrong.append(f"{number}: Snakemake: {failed[-300:]!r}")
    return found


def _is_short(message: str) -> bool:
    """A line per mistake, each of the key or of the file."""
    lines = message.splitlines()
    starts = all(line.startswith(("config: ", "model.")) or "study.yaml" in line for line in lines)
    return 0 < len(lines) <= 21 and starts and all(len(line) < 2000 and line.isprintable() for line in lines)


if __name__ == "__main__":
    each, planned_too = map(int, sys.argv[1:])
    figures = try_all(range(each * len(SHIPPED)), by_snakemake=planned_too)
    print(figures, *figures.wrong, sep="\n")
    sys.exit(bool(figures.wrong))
