"""From measurements to answers. Cheap: thin scripts around pure functions."""


rule table1:
    input:
        curves_of(study.orderings),
    output:
        csv=report(
            "<results>/table1.csv",
            caption="../report/table1.rst",
            category="Commutativity",
            labels={"table": "1", "form": "CSV"},
        ),
        markdown=report(
            "<results>/table1.md",
            caption="../report/table1.rst",
            category="Commutativity",
            labels={"table": "1", "form": "as in the paper"},
        ),
        provenance="<results>/table1.json",
    log:
        "<logs>/table1.log",
    localrule: True
    params:
        datasets=study.datasets,
        operator_sets=study.operator_sets,
        seeds=study.seeds,
    script:
        "../scripts/table1.py"
