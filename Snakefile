"""PipeOps: efficiency operators on transformers, in every order.

data -> O -> {D, P, E} -> ... -> export -> measure (dataset, ordering, seed) -> Table 1
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/analyse.smk"


rule all:
    default_target: True
    input:
        "<results>/table1.csv",


onsuccess:
    show_results()
