"""Table 1 from the measured curves."""

from pathlib import Path

from pipeops.analysis.commutativity import compare_all, table1
from pipeops.analysis.runs import curves, read_runs
from pipeops.analysis.tables import table1_markdown, write_table
from pipeops.errors import errors_in_one_line

with errors_in_one_line(Path(snakemake.log[0])):
    runs = curves(read_runs(map(Path, snakemake.input)))
    comparisons = compare_all(runs, snakemake.params.operator_sets)
    write_table(
        table1(comparisons),
        table1_markdown(comparisons),
        outputs=dict(snakemake.output.items()),
        parameters=dict(snakemake.params.items()),
    )
