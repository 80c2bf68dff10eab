"""The tradeoff curves of one pipeline, seed by seed and in one table: its answers joined with their price."""

from pathlib import Path

from pipeops.analysis.runs import pool, pool_exits, read_details
from pipeops.data.tasks import TASKS
from pipeops.errors import errors_in_one_line
from pipeops.files import replaced
from pipeops.measuring.answers import read_answers
from pipeops.measuring.classes import METRICS
from pipeops.measuring.prices import read_prices
from pipeops.measuring.replay import curves
from pipeops.provenance import write_json

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
    for table, output in (
        (pool(outputs), snakemake.output.csv),
        (pool_exits(outputs), snakemake.output.exits),
    ):
        with replaced(Path(output)) as temporary:
            table.to_csv(temporary, index=False)
    write_json(Path(snakemake.output.details), [record for one in outputs for record in read_details(one)])
