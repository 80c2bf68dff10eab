"""The paper's Figures 2 to 4 and two more. Each function draws one figure from measurements.

Colours are those of seaborn's colour-blind palette; what colour tells, a marker or a line style tells too.
Accuracy is in percent; time is relative to O, padded to ``max_length``, which is 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeops.commutativity import Comparison
from pipeops.cumulativeness import COMPOUND
from pipeops.curves import MeanCurve, TradeoffCurve, mean_curve, pareto_front
from pipeops.errors import PipeOpsError
from pipeops.files import replaced
from pipeops.measurements import Runs, curves
from pipeops.paper import title
from pipeops.pipeline import orderings

mpl.use("Agg")
sns.set_theme(style="whitegrid", context="paper", palette="colorblind", rc={"savefig.bbox": "tight"})

_COLOURS = sns.color_palette("colorblind")
_MARKERS = "osD^vPX"
_TIME = "time / time of O"
_ACCURACY = "accuracy, %"
_RUN_WITH = {"": "as it is", "L": "L", "Q": "Q", "LQ": "LQ"}
_PANEL = (3.6, 2.9)  # inches


def save(figure: Figure, *paths: Path) -> None:
    """Write a figure to each path, as its suffix says (PNG or PDF). Same figure, same bytes."""
    for path in paths:
        undated = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        with replaced(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=160, metadata=undated)


def orders(measurements: pd.DataFrame, operator_sets: Sequence[str]) -> Figure:
    """Figure 2: the curves of all orders of an operator set, of the first seed; a panel per set.

    Args:
        measurements: as ``measurements.read_runs`` returns them.
        operator_sets: one panel each. Colour is the dataset, marker the order.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    runs = _drawable(measurements)
    datasets, seed = _datasets(runs), min(seed for _, _, seed in runs)
    figure, axes = _grid(1, len(operator_sets))
    for ax, operators in zip(axes[0], operator_sets, strict=True):
        for (dataset, colour), (order, marker) in _pairs(datasets, _orders(operators)):
            if (run := runs.get((dataset, order, seed))) is not None:
                _draw(ax, run, color=colour, marker=marker, label=f"{title(dataset)}, {order}")
        ax.set_title(f"{'+'.join(operators)} (seed {seed})")
        ax.legend(fontsize="small")
    return figure


def seeds(measurements: pd.DataFrame, operator_sets: Sequence[str]) -> Figure:
    """Figure 3: one run of each order (solid) against the mean of all seeds (dashed) with its 95% band.

    How curves at different times are averaged: ``curves.mean_curve``. A row per dataset, a column per set.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    runs = _drawable(measurements)
    datasets, all_seeds = _datasets(runs), sorted({seed for _, _, seed in runs})
    figure, axes = _grid(len(datasets), len(operator_sets))
    for (dataset, operators), ax in zip(_product(datasets, operator_sets), axes.flat, strict=True):
        for order, (colour, marker) in zip(_orders(operators), _styles(), strict=False):
            found = [runs[dataset, order, seed] for seed in all_seeds if (dataset, order, seed) in runs]
            if not found:
                continue
            _draw(
                ax, found[0], color=colour, marker=marker, markersize=3, label=f"{order}, seed {all_seeds[0]}"
            )
            if len(found) > 1:
                _draw_mean(ax, mean_curve(found), color=colour, label=f"{order}, mean of {len(found)}")
        note = "one seed: no mean" if len(all_seeds) == 1 else f"{len(all_seeds)} seeds, 95% bands"
        ax.set_title(f"{title(dataset)}, {'+'.join(operators)} ({note})")
        ax.legend(fontsize="x-small")
    return figure


def estimates(measurements: pd.DataFrame, study: pd.DataFrame) -> Figure:
    """Figure 4: the measured target, E as measured, and the target as estimated, each the mean of all seeds.

    Args:
        measurements: as ``measurements.read_runs`` returns them, E's among them.
        study: what ``cumulativeness.cumulativeness`` returns for them.

    Raises:
        PipeOpsError: nothing was estimated.
    """
    study = study[(study["inference"] == "") & (study["estimate"] == COMPOUND)]
    if study.empty:
        raise PipeOpsError(
            "no estimated curves to draw: name operator sets of E with D or P in cumulativeness"
        )
    runs = curves(measurements)
    datasets, operator_sets = list(study["dataset"].unique()), list(study["operators"].unique())
    figure, axes = _grid(len(datasets), len(operator_sets))
    blue, orange, green = _COLOURS[0], _COLOURS[1], _COLOURS[2]
    for (dataset, operators), ax in zip(_product(datasets, operator_sets), axes.flat, strict=True):
        panel = study[(study["dataset"] == dataset) & (study["operators"] == operators)]
        _draw_mean(
            ax, _mean_of(runs, dataset, "E"), color=blue, marker=".", linestyle="-", label="E, measured"
        )
        for order, marker in zip(panel["pipeline"].unique(), _MARKERS, strict=False):
            mean = _mean_of(runs, dataset, str(order))
            label = f"{order}, measured"
            _draw_mean(
                ax, mean, color=green, marker=marker, markersize=3, linestyle="-", label=label, band=False
            )
        one_order = panel[panel["pipeline"] == panel["pipeline"].iloc[0]]  # all orders share the estimate
        predicted = [
            TradeoffCurve(rows["time_relative_estimated"].to_numpy(), rows["accuracy_estimated"].to_numpy())
            for _, rows in one_order.groupby("seed")
        ]
        label = f"{'+'.join(operators)}, estimated"
        _draw_mean(ax, mean_curve(predicted), color=orange, label=label, band=False)
        ax.set_title(f"{title(str(dataset))}, {'+'.join(operators)}")
        ax.legend(fontsize="x-small")
    return figure


def table1_heat_map(comparisons: Mapping[tuple[str, str], Comparison]) -> Figure:
    """Draw Table 1 as a heat map: how much further apart different orders are than seeds, with p-values.

    Raises:
        PipeOpsError: there are no comparisons.
    """
    if not comparisons:
        raise PipeOpsError("no comparisons to draw: name operator_sets and datasets")
    datasets, sets = (list(dict.fromkeys(key[i] for key in comparisons)) for i in (0, 1))
    excess = pd.DataFrame(np.nan, index=list(map(title, datasets)), columns=list(map("+".join, sets)))
    text = pd.DataFrame("", index=excess.index, columns=excess.columns)
    for (dataset, operators), c in comparisons.items():
        row, column = title(dataset), "+".join(operators)
        same, different = (
            distances.mean() if distances.size else np.nan for distances in (c.same, c.different)
        )
        excess.loc[row, column] = different - same
        p = "no p-value" if np.isnan(c.p_value) else f"p = {c.p_value:.2g} (at best {c.smallest_p_value:.2g})"
        text.loc[row, column] = f"Same {same:.2f}\nDiff. {different:.2f}\n{p}"
    figure, axes = _grid(1, 1, panel=(1.2 + 2.2 * len(sets), 0.8 + 1.1 * len(datasets)))
    largest = np.nanmax(np.abs(excess.to_numpy()), initial=0.1)
    sns.heatmap(
        excess, annot=text, fmt="", cmap="vlag", vmin=-largest, vmax=largest, linewidths=1, ax=axes[0, 0],
        cbar_kws={"label": "Diff. - Same, percentage points"},
    )  # fmt: skip
    axes[0, 0].set(xlabel="", ylabel="", title="Does the order matter? (red: more than the seed)")
    axes[0, 0].tick_params(axis="y", rotation=0)
    return figure


def pareto(measurements: pd.DataFrame) -> Figure:
    """Accuracy against time of every measured pipeline, with the Pareto front; a panel per dataset.

    A point is a pipeline at one threshold, the mean of its seeds. Those on the front are numbered, and named
    beside the panel.

    Raises:
        PipeOpsError: there is nothing to draw.
    """
    points = operating_points(measurements)
    if points.empty:
        raise PipeOpsError("no curves to draw: nothing was measured")
    datasets = list(points["dataset"].unique())
    figure, axes = _grid(len(datasets), 1, panel=(6.5, 4.2))
    for dataset, ax in zip(datasets, axes[:, 0], strict=True):
        panel = points[points["dataset"] == dataset].assign(percent=lambda rows: 100 * rows["accuracy"])
        sns.scatterplot(
            panel.replace({"inference": _RUN_WITH}), x="time_relative", y="percent", ax=ax, s=14, alpha=0.7,
            hue="inference", style="inference", hue_order=_RUN_WITH.values(), style_order=_RUN_WITH.values(),
        )  # fmt: skip
        front = panel.iloc[pareto_front(panel["time_relative"], panel["percent"])]
        x, y = front["time_relative"].to_numpy(), front["percent"].to_numpy()
        ax.plot(x, y, color="black", linewidth=1, drawstyle="steps-post", label="Pareto front")
        names = front["name"].to_numpy()
        new = np.r_[True, names[1:] != names[:-1]]
        for number, (time, accuracy) in enumerate(zip(x[new], y[new], strict=True), start=1):
            ax.annotate(str(number), (time, accuracy), (-4, 5), textcoords="offset points", ha="right")
        key = "\n".join(f"{number:>2}  {name}" for number, name in enumerate(names[new], start=1))
        ax.text(1.02, 1, f"on the front\n{key}", transform=ax.transAxes, va="top", family="monospace")
        ax.set_xscale("log")
        ax.set(xlabel=_TIME, ylabel=_ACCURACY, title=f"{title(str(dataset))}: all measured pipelines")
        ax.legend(fontsize="small", title="run with")
    return figure


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


def _mean_of(runs: Runs, dataset: str, pipeline: str) -> MeanCurve:
    return mean_curve([run for key, run in runs.items() if key[:2] == (dataset, pipeline)])


def _styles() -> Iterator[tuple[tuple[float, float, float], str]]:
    return zip(_COLOURS, _MARKERS, strict=False)


def _product(datasets: Sequence[str], operator_sets: Sequence[str]) -> list[tuple[str, str]]:
    return [(dataset, operators) for dataset in datasets for operators in operator_sets]


def _pairs(datasets: Sequence[str], orders: Sequence[str]) -> Iterator[tuple[tuple, tuple]]:
    for dataset, colour in zip(datasets, _COLOURS, strict=False):
        for order, marker in zip(orders, _MARKERS, strict=False):
            yield (dataset, colour), (order, marker)


def _grid(rows: int, columns: int, *, panel: tuple[float, float] = _PANEL) -> tuple[Figure, np.ndarray]:
    """A figure with an axes per panel, shape (rows, columns)."""
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xlabel=_TIME, ylabel=_ACCURACY)
    return figure, axes


def _draw(ax: Axes, curve: TradeoffCurve, *, markersize: float = 4, **style: Any) -> None:
    ax.plot(curve.time, 100 * curve.accuracy, linewidth=1, markersize=markersize, **style)


def _draw_mean(ax: Axes, mean: MeanCurve, *, band: bool = True, linestyle: str = "--", **style: Any) -> None:
    ax.plot(mean.time, 100 * mean.accuracy, linewidth=1.2, linestyle=linestyle, **style)
    if band:
        ax.fill_between(
            mean.time, 100 * mean.low, 100 * mean.high, color=style["color"], alpha=0.15, linewidth=0
        )
