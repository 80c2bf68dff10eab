"""Table 1 from the measured curves."""

import sys
from pathlib import Path

from pipeops.commutativity import compare, table1
from pipeops.curves import read_curve
from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.pipeline import orderings
from pipeops.provenance import provenance, write_json
from pipeops.reporting import table1_markdown


def main() -> None:
    runs = {}
    for path in map(Path, snakemake.input):
        dataset, ordering, seed = path.parts[-3], path.parts[-2], int(path.stem.removeprefix("seed"))
        runs[dataset, ordering, seed] = read_curve(path)
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


try:
    main()
except PipeOpsError as error:
    Path(snakemake.log[0]).write_text(f"error: {error}\n")
    sys.exit(f"error: {error}")
