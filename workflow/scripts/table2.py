"""Table 2 from the measurements of its pipelines."""

from pathlib import Path

from pipeops.analysis.runs import read_runs
from pipeops.analysis.savings import table2
from pipeops.analysis.tables import table2_markdown, write_table
from pipeops.errors import errors_in_one_line

with errors_in_one_line(Path(snakemake.log[0])):
    table = table2(read_runs(map(Path, snakemake.input)), snakemake.params.pipelines)
    write_table(
        table,
        table2_markdown(table),
        outputs=dict(snakemake.output.items()),
        parameters=dict(snakemake.params.items()),
    )
