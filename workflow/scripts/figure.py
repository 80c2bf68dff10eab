"""One figure from measurements: PNG and PDF."""

from pathlib import Path

from pipeops.analysis import figures
from pipeops.analysis.commutativity import compare_all
from pipeops.analysis.cumulativeness import cumulativeness
from pipeops.analysis.runs import curves, read_exits, read_runs
from pipeops.errors import errors_in_one_line

DRAW = {
    "figure2": figures.orders,
    "figure3": figures.seeds,
    "figure4": lambda runs, sets: figures.estimates(runs, cumulativeness(runs, sets)),
    "table1": lambda runs, sets: figures.table1_heat_map(compare_all(curves(runs), sets)),
    "pareto": lambda runs, _: figures.pareto(runs),
    "joint": lambda runs, pipelines: figures.joint(runs, read_exits(inputs), pipelines),
}

with errors_in_one_line(Path(snakemake.log[0])):
    inputs = list(map(Path, snakemake.input.curves))
    figure = DRAW[snakemake.params.figure](read_runs(inputs), snakemake.params.shown)
    figures.save(figure, *map(Path, snakemake.output))
