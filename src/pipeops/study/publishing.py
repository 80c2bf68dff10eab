"""A study's prices and answers in one folder, from which others make every table and figure."""

import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.integrity import sealed, sums_of
from pipeops.measuring.answers import read_answers
from pipeops.measuring.prices import read_prices
from pipeops.provenance import common_provenance, json_text
from pipeops.study.config import Config
from pipeops.study.published import SETTINGS, deciding, refuse_other_prices
from pipeops.text import markdown_table

MOST_BYTES = 30_000_000
"""What is published fits into a repository."""


def publish(study: Config, output: Path, *, configfiles: Sequence[Path]) -> None:
    """Copy the prices and answers of a finished study, and write a README of what they are.

    Args:
        study: what is published: its datasets, measured pipelines and seeds.
        output: the folder; it may hold an earlier state of the same study.
        configfiles: where the study was read from, for the command in the README.

    Raises:
        PipeOpsError: a file is absent, damaged or of another run, prices are of several CPUs, they are larger
            than 30 MB together, or the folder holds something else.
    """
    results, records = Path(study.pathvars.results), []
    artefacts: list[tuple[Path, ...]] = []
    for dataset, pipeline in product(study.datasets, study.measured):
        prices = Path("prices", dataset, f"{pipeline.operators}.csv")
        read_prices(results / prices, this_cpu=False)
        artefacts.append((prices, prices.with_suffix(".json")))
        for seed in study.seeds:
            answers = Path("answers", dataset, str(pipeline), f"seed{seed}.parquet")
            said = read_answers(results / answers, dataset=dataset, pipeline=str(pipeline), seed=seed)
            records.append(said.record["provenance"] | {"int8_kernels": said.record["int8_kernels"]})
            artefacts.append((answers,))
    refuse_other_prices(study, results)
    artefacts = list(dict.fromkeys(artefacts))
    size = sum((results / name).stat().st_size for names in artefacts for name in names)
    if size > MOST_BYTES:
        raise PipeOpsError(
            f"{results}: prices and answers are {size / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}; "
            "publish fewer seeds or pipelines, or set data.validation_examples"
        )
    ours = [*artefacts, (Path(SETTINGS),)]
    wanted = {str(name) for first, *others in ours for name in (first, sums_of(first), *others)}
    there = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    if strange := sorted(there - wanted - {"README.md"}):
        raise PipeOpsError(f"{output / strange[0]}: is not of this study; delete it, or name another folder")
    for names in artefacts:
        with sealed(*(output / name for name in names)) as paths:
            for name, path in zip(names, paths, strict=True):
                shutil.copyfile(results / name, path)
    with sealed(output / SETTINGS) as (path,):
        path.write_text(json_text(deciding(study)))
    with replaced(output / "README.md") as path:
        path.write_text(_readme(study, output, configfiles, records, size))


def _readme(
    study: Config, output: Path, configfiles: Sequence[Path], records: Sequence[dict], size: int
) -> str:
    common = common_provenance([record | {"finished": ""} for record in records])
    cpu = common["cpu"]
    machines = [one["model"] for one in (cpu if isinstance(cpu, list) else [cpu])]
    files = [
        [
            "`prices/{dataset}/{operators}.csv`",
            "a row per inference letters, input length in tokens and exit",
        ],
        ["`prices/{dataset}/{operators}.json`", "shape, machine, load while it was priced"],
        [
            "`answers/{dataset}/{pipeline}/seed{seed}.parquet`",
            "a row per validation example; no text",
        ],
        [f"`{SETTINGS}`", "the settings that these depend on; a study with others is refused"],
        ["`*.sha256`", "digests, which are checked when the files are read"],
    ]
    columns = [
        ["prices", "`time_relative`", "median time over O's, padded to `max_length`"],
        ["", "`time_ms`", "the same times O's median milliseconds"],
        ["", "`iqr`, `rounds`", "range of the middle half of the rounds, and their number"],
        ["", "`first_half`, `second_half`", "`time_relative` of either half of the rounds alone"],
        ["answers", "`example`", "position in the validation split"],
        ["", "`length`, `label`", "tokens, and class id"],
        ["", "`fp32`, `int8`", "logits: exit after exit, in each the classes in order"],
        ["", "metadata `pipeops`", "JSON: shape with its exit layers, class names, seed, provenance"],
    ]
    about = [
        ["datasets", ", ".join(study.datasets)],
        ["pipelines", ", ".join(map(str, study.measured))],
        ["seeds", ", ".join(map(str, study.seeds))],
        ["size", f"{size / 1e6:.1f} MB"],
        ["CPU", ", ".join(machines)],
        ["int8 kernels", str(common["int8_kernels"])],
        [
            "packages",
            ", ".join(f"{name} {version}" for name, version in _packages(common["packages"]).items()),
        ],
    ]
    command = "snakemake --cores 2"
    if configfiles:
        command += f" --configfile {' '.join(map(str, configfiles))}"
    return (
        "\n\n".join(
            [
                "# Prices and answers",
                "What every exit of every trained model says of every validation example, and what leaving\n"
                "there costs. Any rule of leaving can be replayed from them. All tables and figures without\n"
                "training:",
                f"```\n{command} --config answers={output} -- all\n```",
                markdown_table(["", ""], about),
                markdown_table(["File", "What it holds"], files),
                markdown_table(["File", "Column", "Meaning"], columns),
            ]
        )
        + "\n"
    )


def _packages(found: dict | list[dict]) -> dict[str, str]:
    return found if isinstance(found, dict) else found[0]
