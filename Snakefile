"""PipeOps: efficiency operators on transformers, in every order.

data -> O -> {D, P, E, C} -> ... -> export -> evaluate (dataset, pipeline, seed) -+-> curves -> verdicts, tables,
     \\-> price (dataset, set of operators) ---------------------------------------+             estimates, figures
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/analyse.smk"


rule all:
    default_target: True
    input:
        all_results(),


rule parts:
    # What predictions are made of: prices of every shape, and runs of O and of single operators.
    input:
        prices_of(map(str, [*study.orderings, *study.estimated_from])),
        answers_of([one for one in study.estimated_from if len(one.operators) == 1]),


onsuccess:
    show_results()
