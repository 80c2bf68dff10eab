"""Table 1 from the measured curves."""

from pathlib import Path

from pipeops.commutativity import compare, table1
from pipeops.errors import errors_in_one_line
from pipeops.files import replaced
from pipeops.measurements import curves, read_runs
from pipeops.pipeline import orderings
from pipeops.provenance import provenance, write_json
from pipeops.reporting import table1_markdown

with errors_in_one_line(Path(snakemake.log[0])):
    runs = curves(read_runs(map(Path, snakemake.input)))
    comparisons = {
        (dataset, operators): compare(
            {
                (str(ordering), seed): runs[dataset, str(ordering), seed]
                for ordering in orderings(operators)
                for seed in snakemake.params.seeds
            }
        )
        for dataset in snakemake.params.datasets
        for operators in snakemake.params.operator_sets
    }
    with replaced(Path(snakemake.output.csv)) as path:
        table1(comparisons).to_csv(path, index=False)
    with replaced(Path(snakemake.output.markdown)) as path:
        path.write_text(table1_markdown(comparisons))
    write_json(Path(snakemake.output.provenance), provenance(**dict(snakemake.params.items())))
