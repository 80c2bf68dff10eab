"""Everything that can be asked of the measurements, one row each: tables and figures.

Rule, function, file and caption (``workflow/report/{name}.rst``) of an analysis share its name. The
workflow's rules, what ``all`` asks for, the plan's job counts and the report's filing derive from this table.
Nothing heavy is imported: the function is named by a string and imported by the job that runs it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeops.errors import PipeOpsError
from pipeops.pipeline import Pipeline
from pipeops.study.config import Config

Kind = Literal["table", "figure"]
FORMS = {
    "table": {"csv": "values (CSV)", "html": "table", "md": None, "json": None},
    "figure": {"png": "figure", "pdf": "print (PDF)"},
}
"""Kind -> the files that it is written as -> what the report calls each; None: not in the report."""
COMMUTATIVITY = "1 Commutativity"
SAVINGS = "2 Quantisation and dynamic length"
CUMULATIVENESS = "3 Cumulativeness"
JOINT = "4 Joint training"
PIPELINES = "5 All pipelines"
RECOMMENDATION = "6 Recommendation"
STUDY = "7 Study"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One table or figure."""

    name: str
    kind: Kind
    title: str
    """In the report."""
    category: str
    """Of the report."""
    pipelines: Callable[[Config], Sequence[Pipeline | str]]
    """Trained pipelines whose measurements it reads."""
    shown: Callable[[Config], list[str]]
    """What it is about: operator sets or pipelines."""
    parameters: Callable[[Config], dict[str, Any]] = lambda _: {}
    """What else its function takes, by name."""
    exits: bool = False
    """Whether it also reads the measurements exit by exit."""
    replays: bool = False
    """Whether it also reads what curves are made from: answers and prices."""
    otherwise: str = ""
    """What to say where a study leaves nothing to show; empty where there always is something."""

    @property
    def target(self) -> str:
        """``module:function``: takes the measurements and what is shown, and returns a table or a figure."""
        return f"pipeops.analysis.{self.kind}s:{self.name}"

    def path(self, form: str) -> str:
        """Where one of its ``FORMS`` lies within the results."""
        folder = "figures/" if self.kind == "figure" else ""
        return f"{folder}{self.name}.{form}"

    def measured(self, study: Config) -> list[str]:
        """The trained pipelines whose measurements it reads.

        Raises:
            PipeOpsError: the study leaves nothing to show.
        """
        found = [str(pipeline) for pipeline in self.pipelines(study)]
        if self.otherwise and not self.shown(study):
            raise PipeOpsError(self.otherwise.format(pipelines=", ".join([*study.pipelines, "C"])))
        return found


def _orderings(study: Config) -> list[Pipeline]:
    return study.orderings


def _operator_sets(study: Config) -> list[str]:
    return study.operator_sets


def _margin(study: Config) -> dict[str, Any]:
    return {"margin": study.commutativity.margin}


def _margin_and_steps(study: Config) -> dict[str, Any]:
    return _margin(study) | {"steps": study.steps_of_orderings}


def _predictable(study: Config) -> list[str]:
    """The measured pipelines that O and their operators alone predict, where all of these are measured."""
    measured = {str(pipeline) for pipeline in study.measured}
    return [
        str(pipeline)
        for pipeline in study.measured
        if len(pipeline.operators) > 1
        and set(pipeline.operators) <= set("VDPE")
        and {"O", *pipeline.operators} <= measured
    ]


_ONE_TASK = "config: datasets: is one task, so there is nothing to average over; name two or more"
_NO_ESTIMATES = (
    "config: cumulativeness: is empty, so nothing is estimated; name operator sets with E, such as [DE]"
)
_NO_C = "config: C is not measured, so there is nothing to compare it with; add it: pipelines: [{pipelines}]"
_NO_PREDICTIONS = (
    "config: pipelines: nothing that is measured can be predicted, as O or its single operators are not "
    "measured; name O, D, P and E there"
)

ANALYSES = (
    Analysis(
        name="table1",
        kind="table",
        title="Table 1",
        category=COMMUTATIVITY,
        pipelines=_orderings,
        shown=_operator_sets,
        parameters=_margin_and_steps,
    ),
    Analysis(
        name="commutativity",
        kind="table",
        title="Verdicts",
        category=COMMUTATIVITY,
        pipelines=_orderings,
        shown=_operator_sets,
        parameters=_margin_and_steps,
        replays=True,
    ),
    Analysis(
        name="effects",
        kind="table",
        title="Effects over tasks",
        category=COMMUTATIVITY,
        pipelines=_orderings,
        shown=lambda study: study.operator_sets if len(study.datasets) > 1 else [],
        parameters=_margin,
        otherwise=_ONE_TASK,
    ),
    Analysis(
        name="table2",
        kind="table",
        title="Table 2",
        category=SAVINGS,
        pipelines=lambda study: study.table2,
        shown=lambda study: study.table2,
    ),
    Analysis(
        name="cumulativeness",
        kind="table",
        title="Estimates",
        category=CUMULATIVENESS,
        pipelines=lambda study: study.estimated_from,
        shown=lambda study: study.estimated_sets,
        replays=True,
        otherwise=_NO_ESTIMATES,
    ),
    Analysis(
        name="costeff",
        kind="table",
        title="Joint against sequential",
        category=JOINT,
        pipelines=lambda study: study.compared_jointly,
        shown=lambda study: study.compared_jointly,
        otherwise=_NO_C,
    ),
    Analysis(
        name="recommendation",
        kind="table",
        title="Recommendation",
        category=RECOMMENDATION,
        pipelines=lambda study: study.measured,
        shown=_predictable,
        replays=True,
        otherwise=_NO_PREDICTIONS,
    ),
    Analysis(
        name="figure2",
        kind="figure",
        title="Figure 2: orderings",
        category=COMMUTATIVITY,
        pipelines=_orderings,
        shown=_operator_sets,
    ),
    Analysis(
        name="figure3",
        kind="figure",
        title="Figure 3: orderings and seeds",
        category=COMMUTATIVITY,
        pipelines=_orderings,
        shown=_operator_sets,
    ),
    Analysis(
        name="heatmap",
        kind="figure",
        title="Table 1 as a heat map",
        category=COMMUTATIVITY,
        pipelines=_orderings,
        shown=_operator_sets,
        parameters=_margin,
    ),
    Analysis(
        name="figure4",
        kind="figure",
        title="Figure 4: estimates",
        category=CUMULATIVENESS,
        pipelines=lambda study: study.estimated_from,
        shown=lambda study: study.estimated_sets,
        otherwise=_NO_ESTIMATES,
    ),
    Analysis(
        name="pareto",
        kind="figure",
        title="Accuracy against time",
        category=PIPELINES,
        pipelines=lambda study: study.measured,
        shown=_operator_sets,
    ),
    Analysis(
        name="joint",
        kind="figure",
        title="Joint against sequential: curves",
        category=JOINT,
        pipelines=lambda study: study.compared_jointly,
        shown=lambda study: study.compared_jointly,
        exits=True,
        otherwise=_NO_C,
    ),
    Analysis(
        name="regret",
        kind="figure",
        title="Recommendation: regret",
        category=RECOMMENDATION,
        pipelines=lambda study: study.measured,
        shown=_predictable,
        replays=True,
        otherwise=_NO_PREDICTIONS,
    ),
)
"""In the order in which results are listed."""
TABLES = tuple(analysis for analysis in ANALYSES if analysis.kind == "table")
FIGURES = tuple(analysis for analysis in ANALYSES if analysis.kind == "figure")


def asked_for(study: Config) -> list[Analysis]:
    """The analyses that the target ``all`` makes: those that the study leaves something to show for."""
    return [analysis for analysis in ANALYSES if analysis.shown(study) or not analysis.otherwise]
