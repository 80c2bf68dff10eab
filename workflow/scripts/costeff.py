"""Joint training against operators one after the other, from the measurements."""

from pathlib import Path

from pipeops.analysis.joint import costeff
from pipeops.analysis.runs import read_runs
from pipeops.analysis.tables import costeff_markdown, write_table
from pipeops.errors import errors_in_one_line

with errors_in_one_line(Path(snakemake.log[0])):
    table = costeff(read_runs(map(Path, snakemake.input)), snakemake.params.pipelines)
    write_table(
        table,
        costeff_markdown(table),
        outputs=dict(snakemake.output.items()),
        parameters=dict(snakemake.params.items()),
    )
