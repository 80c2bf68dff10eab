"""One figure from measurements: PNG and PDF."""

from pathlib import Path

from pipeops import figures
from pipeops.commutativity import compare_all
from pipeops.cumulativeness import cumulativeness
from pipeops.errors import errors_in_one_line
from pipeops.measurements import curves, read_runs

DRAW = {
    "figure2": figures.orders,
    "figure3": figures.seeds,
    "figure4": lambda runs, sets: figures.estimates(runs, cumulativeness(runs, sets)),
    "table1": lambda runs, sets: figures.table1_heat_map(compare_all(curves(runs), sets)),
    "pareto": lambda runs, _: figures.pareto(runs),
}

with errors_in_one_line(Path(snakemake.log[0])):
    measurements = read_runs(map(Path, snakemake.input))
    figure = DRAW[snakemake.params.figure](measurements, snakemake.params.operator_sets)
    figures.save(figure, *map(Path, snakemake.output))
