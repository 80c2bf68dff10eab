"""All seeds of one pipeline: their measurements in one table, their provenance in one list."""

from pathlib import Path

from pipeops.analysis.runs import pool, pool_exits, read_details
from pipeops.errors import errors_in_one_line
from pipeops.files import replaced
from pipeops.provenance import write_json

with errors_in_one_line(Path(snakemake.log[0])):
    curves = list(map(Path, snakemake.input.curves))
    for table, output in (
        (pool(curves), snakemake.output.csv),
        (pool_exits(curves), snakemake.output.exits),
    ):
        with replaced(Path(output)) as path:
            table.to_csv(path, index=False)
    records = [record for curve in curves for record in read_details(curve)]
    write_json(Path(snakemake.output.details), records)
