"""The tradeoff curves of one pipeline, seed by seed and in one table: its answers joined with their price."""

from pathlib import Path

from pipeops.analysis.runs import pool, pool_exits, read_details
from pipeops.data.tasks import TASKS
from pipeops.errors import errors_in_one_line
from pipeops.integrity import sealed
from pipeops.measuring.answers import read_answers
from pipeops.measuring.classes import METRICS
from pipeops.measuring.prices import read_prices
from pipeops.measuring.records import files_of
from pipeops.measuring.replay import curves
from pipeops.provenance import json_text

with errors_in_one_line(Path(snakemake.log[0])):
    prices = read_prices(Path(snakemake.input.prices), this_cpu=not snakemake.params.allow_other_cpu)
    folder = Path(snakemake.output.csv).with_suffix("")
    task = TASKS.get(snakemake.wildcards.dataset)
    labels = task.labels if task else None  # one's own classes are those of the rows
    outputs = [folder / f"seed{seed}.csv" for seed in snakemake.params.seeds]
    for seed, path, output in zip(snakemake.params.seeds, snakemake.input.answers, outputs, strict=True):
        answers = read_answers(
            Path(path),
            dataset=snakemake.wildcards.dataset,
            pipeline=snakemake.wildcards.pipeline,
            seed=seed,
            labels=labels,
        )
        metric = METRICS[snakemake.params.metric]
        curves(answers, prices, output, metric=metric, **snakemake.params.rule_of_exits)
    records = [record for one in outputs for record in read_details(one)]
    with sealed(*files_of(Path(snakemake.output.csv))) as (csv, exits, details):
        pool(outputs).to_csv(csv, index=False)
        pool_exits(outputs).to_csv(exits, index=False)
        details.write_text(json_text(records))
