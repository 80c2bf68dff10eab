"""Estimated against measured curves, and a summary over the seeds."""

from pathlib import Path

from pipeops.analysis.cumulativeness import cumulativeness, summary
from pipeops.analysis.runs import read_runs
from pipeops.analysis.tables import cumulativeness_markdown, write_table
from pipeops.errors import errors_in_one_line

with errors_in_one_line(Path(snakemake.log[0])):
    estimates = cumulativeness(read_runs(map(Path, snakemake.input)), snakemake.params.operator_sets)
    write_table(
        estimates,
        cumulativeness_markdown(summary(estimates)),
        outputs=dict(snakemake.output.items()),
        parameters=dict(snakemake.params.items()),
    )
