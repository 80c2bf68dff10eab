"""Figures 2 to 4 of Xin et al. 2022, and others. Each function draws one figure from measurements.

Colours are those of seaborn's colour-blind palette. A marker or line style repeats what a colour says.
Accuracy, or the dataset's other metric, is in percent; time is relative to O, padded to ``max_length``, which
is 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pipeops.analysis import regret as regrets
from pipeops.analysis.commutativity import Comparison, compare_all
from pipeops.analysis.cumulativeness import COMPOUND, cumulativeness
from pipeops.analysis.curves import MeanCurve, TradeoffCurve, mean_curve, pareto_front
from pipeops.analysis.metrics import Metrics, heading, metrics_of, quality
from pipeops.analysis.paper import title
from pipeops.analysis.predict import PREDICTED
from pipeops.analysis.replays import Replays
from pipeops.analysis.runs import Runs, curves
from pipeops.analysis.verdicts import commutativity
from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.measuring.classes import ACCURACY, METRICS
from pipeops.pipeline import Pipeline, orderings

mpl.use("Agg")
sns.set_theme(style="whitegrid", context="paper", palette="colorblind", rc={"savefig.bbox": "tight"})

_COLOURS = sns.color_palette("colorblind")
_MARKERS = "osD^vPX"
_LINES = ("-", "--", "-.", ":") * 2
_TIME = "time / time of O"
_RUN_WITH = {"": "as it is", "L": "L", "Q": "Q", "LQ": "LQ"}
_RUN_WITH_COLOURS = [_COLOURS[i] for i in (0, 1, 2, 4)]
_RUN_WITH_MARKERS = ["o", "^", "s", "D"]
_PANEL = (3.6, 2.9)  # inches


def save(figure: Figure, outputs: Mapping[str, str], _: Mapping[str, Any] | None = None) -> None:
    """Write a figure to each of the outputs, as its suffix says (PNG or PDF). Same figure, same bytes."""
    for path in map(Path, outputs.values()):
        undated = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        with replaced(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=160, metadata=undated)


def figure2(measurements: pd.DataFrame, operator_sets: Sequence[str]) -> Figure:
    """Figure 2: the curves of all orderings of an operator set, of the first seed; a panel per set.

    Args:
        measurements: as ``runs.read_runs`` returns them.
        operator_sets: one panel each. Colour is the dataset, marker and line style the ordering. With one
            dataset colour is the ordering too.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    runs, metrics = _drawable(measurements), metrics_of(measurements)
    datasets, seed = _datasets(runs), min(seed for _, _, seed in runs)
    figure, axes = _grid([metrics.values()], len(operator_sets))
    for operators, ax in zip(operator_sets, axes.flat, strict=True):
        for i, dataset in enumerate(datasets):
            for j, (order, marker, line) in enumerate(
                zip(_orders(operators), _MARKERS, _LINES, strict=False)
            ):
                colour = _COLOURS[(i if len(datasets) > 1 else j) % len(_COLOURS)]
                if (run := runs.get((dataset, order, seed))) is not None:
                    style = {"color": colour, "marker": marker, "linestyle": line}
                    _draw(ax, run, **style, label=f"{heading(dataset, metrics[dataset])}, {order}")
        _finish(ax, f"{_set_title(operators)} (seed {seed})")
    return figure


def figure3(measurements: pd.DataFrame, operator_sets: Sequence[str]) -> Figure:
    """Figure 3: one run of each ordering (solid) against the mean of all seeds (dashed) with its 95% band.

    How curves at different times are averaged: ``curves.mean_curve``. A row per dataset, a column per set.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    runs, metrics = _drawable(measurements), metrics_of(measurements)
    datasets, all_seeds = _datasets(runs), sorted({seed for _, _, seed in runs})
    figure, axes = _grid(_each(metrics, datasets), len(operator_sets))
    for (dataset, operators), ax in zip(product(datasets, operator_sets), axes.flat, strict=True):
        for order, colour, marker in zip(_orders(operators), _COLOURS, _MARKERS, strict=False):
            found = [runs[dataset, order, seed] for seed in all_seeds if (dataset, order, seed) in runs]
            if found:
                _draw(ax, found[0], color=colour, marker=marker, label=f"{order}, seed {all_seeds[0]}")
            if len(found) > 1:
                mean = mean_curve(found)
                _draw(ax, mean, color=colour, linestyle="--", label=f"{order}, mean of {len(found)}")
                least = 100 * METRICS[metrics[dataset]].least
                low, high = (np.clip(100 * end, least, 100) for end in (mean.low, mean.high))
                ax.fill_between(mean.time, low, high, color=colour, alpha=0.15, linewidth=0)
        note = "one seed: no mean" if len(all_seeds) == 1 else f"{len(all_seeds)} seeds, 95% bands"
        _finish(ax, f"{title(dataset)}, {_set_title(operators)} ({note})")
    return figure


def figure4(measurements: pd.DataFrame, operator_sets: Sequence[str]) -> Figure:
    """Figure 4: the measured target, E as measured, and the target as estimated, each the mean of all seeds.

    Args:
        measurements: as ``runs.read_runs`` returns them, O, D, P and E among them.
        operator_sets: sets of E with D, P or both.

    Raises:
        PipeOpsError: nothing was estimated.
    """
    study = cumulativeness(measurements, operator_sets)
    study = study[(study["inference"] == "") & (study["estimate"] == COMPOUND)]
    if study.empty:
        raise PipeOpsError(
            "no estimated curves to draw: name operator sets of E with D or P in cumulativeness"
        )
    runs = curves(measurements)
    datasets, operator_sets = list(study["dataset"].unique()), list(study["operators"].unique())
    figure, axes = _grid(_each(metrics_of(study), datasets), len(operator_sets))
    blue, orange, green = _COLOURS[0], _COLOURS[1], _COLOURS[2]
    for (dataset, operators), ax in zip(product(datasets, operator_sets), axes.flat, strict=True):
        panel = study[(study["dataset"] == dataset) & (study["operators"] == operators)]
        measured_e = mean_curve(_of_all_seeds(runs, dataset, "E"))
        _draw(ax, measured_e, color=blue, marker=".", label="E, measured")
        for order, marker in zip(panel["pipeline"].unique(), _MARKERS, strict=False):
            target = mean_curve(_of_all_seeds(runs, dataset, order))
            _draw(ax, target, color=green, marker=marker, label=f"{order}, measured")
        one_order = panel[panel["pipeline"] == panel["pipeline"].iloc[0]]  # all orders share the estimate
        predicted = [
            TradeoffCurve(rows["time_relative_estimated"].to_numpy(), rows["accuracy_estimated"].to_numpy())
            for _, rows in one_order.groupby("seed")
        ]
        label = f"{_set_title(operators)}, estimated"
        _draw(ax, mean_curve(predicted), color=orange, linestyle="--", label=label)
        _finish(ax, f"{title(dataset)}, {_set_title(operators)}")
    return figure


def heatmap(measurements: pd.DataFrame, operator_sets: Sequence[str], *, margin: float) -> Figure:
    """Table 1 as a heat map: how much further apart different orderings are than seeds, with p-values.

    Raises:
        PipeOpsError: there are no comparisons.
    """
    runs, metrics = curves(measurements), metrics_of(measurements)
    comparisons = compare_all(runs, operator_sets)
    if not comparisons:
        return heat_map_of(comparisons, {})
    table = commutativity(runs, operator_sets, margin=margin, metrics=metrics)
    cells = table.drop_duplicates(["dataset", "operators"])
    named = cells[["dataset", "operators", "cell_verdict"]].to_numpy().tolist()
    verdicts = {(dataset, operators): verdict for dataset, operators, verdict in named}
    return heat_map_of(comparisons, verdicts, metrics)


def heat_map_of(
    comparisons: Mapping[tuple[str, str], Comparison],
    verdicts: Mapping[tuple[str, str], str],
    metrics: Metrics | None = None,
) -> Figure:
    """Draw the comparisons by (dataset, operators), each with its verdict where there is one.

    Without ``metrics`` all are of accuracy.

    Raises:
        PipeOpsError: there are none.
    """
    if not comparisons:
        raise PipeOpsError("no comparisons to draw: name operator_sets and datasets")
    datasets, sets = (list(dict.fromkeys(key[i] for key in comparisons)) for i in (0, 1))
    titles = {one: heading(one, (metrics or {}).get(one, ACCURACY.name)) for one in datasets}
    excess = pd.DataFrame(np.nan, index=list(titles.values()), columns=list(map(_set_title, sets)))
    text = pd.DataFrame("", index=excess.index, columns=excess.columns)
    for (dataset, operators), c in comparisons.items():
        row, column = titles[dataset], _set_title(operators)
        same, different = (
            distances.mean() if distances.size else np.nan for distances in (c.same, c.different)
        )
        excess.loc[row, column] = different - same
        p = "no p-value" if np.isnan(c.p_value) else f"p = {c.p_value:.2g} (at best {c.smallest_p_value:.2g})"
        lines = [f"Same {same:.2f}", f"Diff. {different:.2f}", p]
        text.loc[row, column] = "\n".join([*lines, *filter(None, [verdicts.get((dataset, operators))])])
    figure, axes = _grid([()], 1, panel=(1.2 + 2.2 * len(sets), 0.8 + 1.1 * len(datasets)))
    # Small differences look small: the scale reaches at least to the scatter among the seeds.
    scatter = [c.same.std(ddof=1) for c in comparisons.values() if c.same.size > 1]
    largest = np.nanmax([*np.abs(excess.to_numpy()).flat, *scatter], initial=0.1)
    sns.heatmap(
        excess, annot=text, fmt="", cmap="vlag", vmin=-largest, vmax=largest, linewidths=1, ax=axes[0, 0],
        cbar_kws={"label": "Diff. - Same, points"},
    )  # fmt: skip
    axes[0, 0].set(xlabel="", ylabel="", title="Does the order matter? (red: more than the seed)")
    axes[0, 0].tick_params(axis="y", rotation=0)
    return figure


def pareto(measurements: pd.DataFrame, _: Sequence[str]) -> Figure:
    """Accuracy against time of every measured pipeline, with the Pareto front; a panel per dataset.

    A point is a pipeline at one threshold, the mean of its seeds. Pipelines on the front are numbered at
    their fastest point there, and named beside the panel.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    points = operating_points(measurements)
    if points.empty:
        raise PipeOpsError("no curves to draw: nothing was measured")
    datasets, metrics = list(points["dataset"].unique()), metrics_of(measurements)
    figure, axes = _grid(_each(metrics, datasets), 1, panel=(6.5, 4.2))
    for dataset, ax in zip(datasets, axes[:, 0], strict=True):
        panel = points[points["dataset"] == dataset].assign(percent=lambda rows: 100 * rows["accuracy"])
        sns.scatterplot(
            panel.replace({"inference": _RUN_WITH}), x="time_relative", y="percent", ax=ax, s=14, alpha=0.7,
            hue="inference", style="inference", hue_order=_RUN_WITH.values(), style_order=_RUN_WITH.values(),
            palette=_RUN_WITH_COLOURS, markers=_RUN_WITH_MARKERS,
        )  # fmt: skip
        _draw_front(ax, panel.iloc[pareto_front(panel["time_relative"], panel["percent"])])
        _log_axis(ax)
        ax.margins(y=0.08)
        ax.set(xlabel=_TIME, ylabel=_label([metrics[dataset]]))
        ax.set_title(f"{title(dataset)}: all measured pipelines")
        ax.legend(fontsize="small", title="run with", loc="lower left", bbox_to_anchor=(1, 0), frameon=False)
    return figure


def joint(measurements: pd.DataFrame, pipelines: Sequence[str], *, exits: pd.DataFrame) -> Figure:
    """Joint training (C) against operators one after the other, at equal parameters, FLOPs and time.

    A row per dataset. Against parameters: every exit as the end of a model of its own. Against FLOPs and
    time: a point per threshold; with L and Q dashed. Means of the seeds, and the Pareto front.

    Args:
        measurements: as ``runs.read_runs`` returns them.
        pipelines: what is compared.
        exits: as ``runs.read_exits`` returns them.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    measurements, exits = (table[table["pipeline"].isin(pipelines)] for table in (measurements, exits))
    if measurements.empty or exits.empty:
        raise PipeOpsError("no curves to draw: name C and others in pipelines")
    panels = [
        ("parameters", "parameters_relative", "exit_layer", exits, [""]),
        ("FLOPs", "flops_relative", "threshold", measurements, [""]),
        ("time", "time_relative", "threshold", measurements, ["", "LQ"]),
    ]
    datasets, metrics = list(measurements["dataset"].unique()), metrics_of(measurements)
    figure, axes = _grid(_each(metrics, datasets), len(panels))
    for (dataset, panel), ax in zip(product(datasets, panels), axes.flat, strict=True):
        what, x, key, table, run_with = panel
        shown = table[(table["dataset"] == dataset) & table["inference"].isin(run_with)]
        points = _mean_points(shown, key, x)
        for pipeline, colour, marker in zip(pipelines, cycle(_COLOURS), cycle(_MARKERS), strict=False):
            for inference, line in zip(run_with, ("-", "--"), strict=False):
                rows = points[(points["pipeline"] == pipeline) & (points["inference"] == inference)]
                curve = TradeoffCurve(rows[x].to_numpy(), rows["accuracy"].to_numpy())
                name = f"{pipeline}{inference}"
                _draw(ax, curve, color=colour, marker=marker, linestyle=line, label=name)
        front = points.iloc[pareto_front(points[x], points["accuracy"])]
        steps = {"drawstyle": "steps-post", "linewidth": 0.8, "alpha": 0.6, "label": "Pareto front"}
        ax.plot(front[x], 100 * front["accuracy"], color="black", **steps)
        _log_axis(ax)
        _finish(ax, f"{title(dataset)}: {quality([metrics[dataset]])} against {what}")
        ax.set_xlabel(f"{what} over O's")
    return figure


def regret(_: pd.DataFrame, __: Sequence[str], *, replays: Replays) -> Figure:
    """What would be recommended from single operators at ten budgets; see ``regret.regret``.

    A row per dataset. To the left the accuracy of what was chosen, as expected with its 90% interval and as
    measured, and of the best pipeline. To the right regrets: of the choice and of the best single operator,
    and, of the largest set of operators, of the orderings that two rules take. Grey: how far two seeds of one
    pipeline are apart.
    """
    return regret_of(regrets.regret(replays))


def regret_of(table: pd.DataFrame) -> Figure:
    """Draw what ``regret.regret`` returns."""
    datasets = list(table["dataset"].unique())
    figure, axes = _grid(_each(metrics_of(table), datasets), 2, panel=(4.6, 3.2))
    for dataset, (left, right) in zip(datasets, axes, strict=True):
        rows = table[table["dataset"] == dataset]
        _draw_choices(left, rows[rows["rule"] == regrets.CHOSEN])
        _draw_regrets(right, rows)
        for ax, panel in ((left, "what was chosen"), (right, "regret")):
            _log_axis(ax)
            _finish(ax, f"{title(dataset)}: {panel}")
            ax.set_xlabel("budget / time of O")
        right.set_ylabel("regret, points")
    return figure


def _draw_choices(ax: Axes, chosen: pd.DataFrame) -> None:
    middle, low, high = (100 * chosen[f"accuracy_{end}"].to_numpy() for end in ("expected", "low", "high"))
    points: dict[str, Any] = {"markersize": 3.5, "linestyle": "none"}
    ax.plot(
        chosen["budget"], 100 * chosen["best_accuracy"], color="black", linewidth=1, label="best measured"
    )
    ax.errorbar(
        chosen["budget"], middle, [middle - low, high - middle], color=_COLOURS[1], marker="s",
        markerfacecolor="white", linewidth=1, label="chosen, expected", **points,
    )  # fmt: skip
    style: dict[str, Any] = {"color": _COLOURS[0], "marker": "o", "zorder": 3}
    ax.plot(chosen["budget"], 100 * chosen["accuracy"], label="chosen, measured", **style, **points)


def _draw_regrets(ax: Axes, rows: pd.DataFrame) -> None:
    """By rule: of those that choose an ordering, that of the largest set."""
    sets = rows["operators"][rows["operators"] != regrets.ANY]
    shown = rows[rows["operators"].isin([regrets.ANY, max(sets, key=len, default="")])]
    lines: Any = shown.groupby(["rule", "operators"], sort=False)
    styles = zip(_COLOURS, _MARKERS, _LINES, strict=False)
    for ((rule, operators), line), (colour, marker, dashes) in zip(lines, styles, strict=False):
        label = rule if operators == regrets.ANY else f"{rule}: order of {_set_title(operators)}"
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": dashes}
        ax.plot(line["budget"], line["regret"], label=label, linewidth=1, markersize=3.5, **style)
    noise = rows[rows["rule"] == regrets.CHOSEN]
    band: dict[str, Any] = {"color": "grey", "alpha": 0.2, "linewidth": 0}
    ax.fill_between(noise["budget"], 0, noise["two_seeds"], label="two seeds", **band)


def predictions(table: pd.DataFrame) -> Figure:
    """Every pipeline of one dataset, measured (solid) or predicted (dashed, with the 90% interval).

    A panel for each of the inference operators. Colour is the set of operators, marker the ordering.
    Orderings that are predicted share one curve. Pipelines without exits are points.

    Args:
        table: as ``predict.predict`` returns it.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    if table.empty:
        raise PipeOpsError("no curves to draw: nothing was measured or predicted")
    sets = list(dict.fromkeys(Pipeline(name).operators for name in table["pipeline"]))
    named = table.assign(operators=[Pipeline(name).operators for name in table["pipeline"]])
    dataset, metrics = str(table["dataset"].iloc[0]), set(table["metric"])
    figure, axes = _grid([metrics] * 2, 2, panel=(4.6, 3.4))
    for (inference, run_with), ax in zip(_RUN_WITH.items(), axes.flat, strict=True):
        panel = named[named["inference"] == inference]
        groups: Any = panel.groupby(["operators", "kind"], sort=False)
        for (operators, kind), group in groups:
            colour, names = _COLOURS[sets.index(operators) % len(_COLOURS)], list(group["pipeline"].unique())
            for name in names[:1] if kind == PREDICTED else names:
                rows = group[group["pipeline"] == name].sort_values("time_relative")
                marker = _MARKERS[_orders(operators).index(name) % len(_MARKERS)]
                label = ", ".join(names if kind == PREDICTED else [name])
                _draw_expected(ax, rows, color=colour, marker=marker, label=f"{label}, {kind}")
        _log_axis(ax)
        ax.set_title(f"{title(dataset)}: {run_with}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def _draw_expected(ax: Axes, rows: pd.DataFrame, **style: Any) -> None:
    """Draw one pipeline's points by ascending time; predicted ones dashed and hollow, with their interval."""
    time = rows["time_relative"].to_numpy()
    middle, low, high = (100 * rows[f"accuracy{end}"].to_numpy() for end in ("", "_low", "_high"))
    if rows["kind"].iloc[0] == PREDICTED:
        if len(rows) == 1:
            ax.vlines(time, low, high, color=style["color"], alpha=0.4, linewidth=2)
        ax.fill_between(time, low, high, color=style["color"], alpha=0.15, linewidth=0)
        style |= {"linestyle": "--", "markerfacecolor": "white"}
    ax.plot(time, middle, linewidth=1, markersize=3.5, **style)


def _mean_points(table: pd.DataFrame, key: str, x: str) -> pd.DataFrame:
    """Mean over the seeds of ``x`` and of the accuracy, by pipeline, inference operators and ``key``."""
    keys = ["pipeline", "inference", key]
    return table.groupby(keys, sort=False, dropna=False)[[x, "accuracy"]].mean().reset_index().sort_values(x)


def operating_points(measurements: pd.DataFrame) -> pd.DataFrame:
    """Mean over the seeds of every pipeline's accuracy and time at every threshold.

    Returns:
        Columns dataset, name (such as DEPLQ), inference, threshold, accuracy and time_relative.
    """
    named = measurements.assign(name=measurements["pipeline"] + measurements["inference"])
    keys = ["dataset", "name", "inference", "threshold"]
    means = named.groupby(keys, sort=False, dropna=False)[["accuracy", "time_relative"]].mean()
    return means.reset_index()


def _drawable(measurements: pd.DataFrame) -> Runs:
    runs = curves(measurements)
    if not runs:
        raise PipeOpsError("no curves to draw: nothing was measured")
    return runs


def _datasets(runs: Runs) -> list[str]:
    return list(dict.fromkeys(dataset for dataset, _, _ in runs))


def _orders(operators: str) -> list[str]:
    return [str(order) for order in orderings(operators)]


def _of_all_seeds(runs: Runs, dataset: str, pipeline: str) -> list[TradeoffCurve]:
    return [run for key, run in runs.items() if key[:2] == (dataset, pipeline)]


def _set_title(operators: str) -> str:
    return "+".join(operators)


def _grid(
    metrics: Sequence[Iterable[str]], columns: int, *, panel: tuple[float, float] = _PANEL
) -> tuple[Figure, np.ndarray]:
    """A figure with an axes per panel, shape (rows, columns); ``metrics`` are those of each row."""
    figure = Figure(figsize=(panel[0] * columns, panel[1] * len(metrics)), layout="constrained")
    axes = figure.subplots(len(metrics), columns, squeeze=False)
    for row, shown in zip(axes, metrics, strict=True):
        for ax in row:
            ax.set(xlabel=_TIME, ylabel=_label(shown))
    return figure, axes


def _each(metrics: Metrics, datasets: Iterable[str]) -> list[list[str]]:
    """The metrics of rows that show one dataset each."""
    return [[metrics[dataset]] for dataset in datasets]


def _label(metrics: Iterable[str]) -> str:
    return f"{quality(metrics)}, %"


def _log_axis(ax: Axes) -> None:
    """Make the horizontal axis logarithmic, labelled at 1, 2 and 5 times the powers of ten."""
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    ax.xaxis.set_minor_formatter("{x:g}")
    ax.tick_params(axis="x", which="both", length=0, pad=6)  # labels of both on one line


def _draw(ax: Axes, curve: TradeoffCurve | MeanCurve, **style: Any) -> None:
    ax.plot(curve.time, 100 * curve.accuracy, linewidth=1, markersize=3.5, **style)


def _draw_front(ax: Axes, front: pd.DataFrame) -> None:
    """Draw the front; number each pipeline at its fastest point on it, with a key to the right."""
    time, percent, names = (front[column].to_numpy() for column in ("time_relative", "percent", "name"))
    ax.plot(time, percent, color="black", linewidth=1, drawstyle="steps-post", label="Pareto front")
    fastest = np.sort(np.unique(names, return_index=True)[1])  # points come by ascending time
    for number, i in enumerate(fastest, start=1):
        ax.annotate(str(number), (time[i], percent[i]), (-4, 5), textcoords="offset points", ha="right")
    key = "\n".join(f"{number:>2}  {names[i]}" for number, i in enumerate(fastest, start=1))
    ax.text(1.02, 1, f"on the front\n{key}", transform=ax.transAxes, va="top", family="monospace")


def _finish(ax: Axes, heading: str) -> None:
    ax.set_title(heading)
    ax.legend(fontsize="x-small")
