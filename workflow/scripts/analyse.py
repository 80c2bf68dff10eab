"""One table or figure from measurements, by the function that its row in ``pipeops.study.analyses`` names."""

from importlib import import_module
from pathlib import Path

from pipeops.analysis.metrics import metrics_of
from pipeops.analysis.replays import Replays
from pipeops.analysis.runs import read_exits, read_runs
from pipeops.errors import errors_in_one_line

with errors_in_one_line(Path(snakemake.log[0])):
    module, _, function = snakemake.params.target.partition(":")
    home, curves = import_module(module), list(map(Path, snakemake.input.curves))
    given, measurements = dict(snakemake.params.parameters), read_runs(curves)
    if snakemake.input.get("exits"):
        given["exits"] = read_exits(curves)
    if rule := snakemake.params.rule_of_exits:
        answers, prices = (map(Path, snakemake.input[name]) for name in ("answers", "prices"))
        given["replays"] = Replays.read(answers, prices, metrics=metrics_of(measurements), **rule)
    result = getattr(home, function)(measurements, snakemake.params.shown, **given)
    home.save(result, dict(snakemake.output.items()), dict(snakemake.params.items()))
