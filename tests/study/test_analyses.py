"""The table of analyses, against what it names."""

import re
from importlib import import_module

import pytest
from helpers import ROOT

from pipeops.errors import PipeOpsError
from pipeops.study.analyses import ANALYSES, asked_for
from pipeops.study.config import Config

RULE = (ROOT / "workflow/rules/analyse.smk").read_text()


@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.name)
def test_an_analysis_has_its_function_and_its_caption(analysis):
    module, _, function = analysis.target.partition(":")
    assert callable(getattr(import_module(module), function))
    caption = (ROOT / f"workflow/report/{analysis.name}.rst").read_text()
    for parameter in re.findall(r"snakemake\.params\.(\w+)", caption):
        assert re.search(rf"^ +{parameter}=analysis|^ +{parameter}=study", RULE, flags=re.MULTILINE), (
            parameter
        )


def test_recommendations_are_asked_for_where_something_can_be_predicted():
    pair = {"recommendation", "regret"}
    assert pair <= {analysis.name for analysis in asked_for(Config())}
    without_d = Config(
        pipelines=["O", "P", "E"], operator_sets=["PE", "DE"], table2=["O"], cumulativeness=["PE"]
    )
    shown = {analysis.name: analysis.shown(without_d) for analysis in ANALYSES}
    assert shown["recommendation"] == shown["regret"] == ["EP", "PE"]
    alone = Config(pipelines=["O", "E"], operator_sets=["PE"], table2=["O"], cumulativeness=[])
    assert not pair & {analysis.name for analysis in asked_for(alone)}
    for analysis in ANALYSES:
        if analysis.name in pair:
            with pytest.raises(
                PipeOpsError, match="nothing that is measured can be predicted, as O or its single"
            ):
                analysis.measured(alone)
