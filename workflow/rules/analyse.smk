"""From measurements to answers. Cheap: thin scripts around pure functions."""


rule pool:
    """All seeds of a pipeline in one table, the one input of everything below."""
    input:
        curves=expand(
            "<results>/curves/{{dataset}}/{{pipeline}}/seed{seed}.csv",
            seed=study.seeds,
        ),
        beside=expand(
            "<results>/curves/{{dataset}}/{{pipeline}}/seed{seed}{suffix}",
            seed=study.seeds,
            suffix=[".exits.csv", ".json"] if STORED else [],
        ),
    output:
        csv="<results>/curves/{dataset}/{pipeline}.csv",
        exits="<results>/curves/{dataset}/{pipeline}.exits.csv",
        details="<results>/curves/{dataset}/{pipeline}.json",
    log:
        "<logs>/curves/{dataset}/{pipeline}.log",
    localrule: True
    params:
        revision=revisions.ANALYSE,
    script:
        "../scripts/pool.py"


rule table1:
    input:
        curves_of(study.orderings),
    output:
        csv=report(
            "<results>/table1.csv",
            caption="../report/table1.rst",
            category="1 Commutativity",
            labels={"result": "Table 1", "form": "values (CSV)"},
        ),
        html=report(
            "<results>/table1.html",
            caption="../report/table1.rst",
            category="1 Commutativity",
            labels={"result": "Table 1", "form": "table"},
        ),
        markdown="<results>/table1.md",
        provenance="<results>/table1.json",
    log:
        "<logs>/table1.log",
    localrule: True
    params:
        datasets=study.datasets,
        operator_sets=study.operator_sets,
        seeds=study.seeds,
        revision=revisions.ANALYSE,
    script:
        "../scripts/table1.py"


rule table2:
    input:
        curves_of(study.table2),
    output:
        csv=report(
            "<results>/table2.csv",
            caption="../report/table2.rst",
            category="2 Quantisation and dynamic length",
            labels={"result": "Table 2", "form": "values (CSV)"},
        ),
        html=report(
            "<results>/table2.html",
            caption="../report/table2.rst",
            category="2 Quantisation and dynamic length",
            labels={"result": "Table 2", "form": "table"},
        ),
        markdown="<results>/table2.md",
        provenance="<results>/table2.json",
    log:
        "<logs>/table2.log",
    localrule: True
    params:
        datasets=study.datasets,
        pipelines=study.table2,
        seeds=study.seeds,
        revision=revisions.ANALYSE,
    script:
        "../scripts/table2.py"


rule cumulativeness:
    input:
        curves_of_estimates,
    output:
        csv=report(
            "<results>/cumulativeness.csv",
            caption="../report/cumulativeness.rst",
            category="3 Cumulativeness",
            labels={"result": "Estimates", "form": "values (CSV)"},
        ),
        html=report(
            "<results>/cumulativeness.html",
            caption="../report/cumulativeness.rst",
            category="3 Cumulativeness",
            labels={"result": "Estimates", "form": "table"},
        ),
        markdown="<results>/cumulativeness.md",
        provenance="<results>/cumulativeness.json",
    log:
        "<logs>/cumulativeness.log",
    localrule: True
    params:
        datasets=study.datasets,
        operator_sets=study.estimated_sets,
        seeds=study.seeds,
        revision=revisions.ANALYSE,
    script:
        "../scripts/cumulativeness.py"


rule costeff:
    input:
        curves_compared_jointly,
    output:
        csv=report(
            "<results>/costeff.csv",
            caption="../report/costeff.rst",
            category="4 Joint training",
            labels={"result": "Joint against sequential", "form": "values (CSV)"},
        ),
        html=report(
            "<results>/costeff.html",
            caption="../report/costeff.rst",
            category="4 Joint training",
            labels={"result": "Joint against sequential", "form": "table"},
        ),
        markdown="<results>/costeff.md",
        provenance="<results>/costeff.json",
    log:
        "<logs>/costeff.log",
    localrule: True
    params:
        datasets=study.datasets,
        pipelines=study.compared_jointly,
        seeds=study.seeds,
        revision=revisions.ANALYSE,
    script:
        "../scripts/costeff.py"


rule figure2:
    input:
        curves=curves_of(study.orderings),
    output:
        png=report(
            "<results>/figures/figure2.png",
            caption="../report/figure2.rst",
            category="1 Commutativity",
            labels={"result": "Figure 2: orders", "form": "figure"},
        ),
        pdf=report(
            "<results>/figures/figure2.pdf",
            caption="../report/figure2.rst",
            category="1 Commutativity",
            labels={"result": "Figure 2: orders", "form": "print (PDF)"},
        ),
    log:
        "<logs>/figures/figure2.log",
    localrule: True
    params:
        figure="figure2",
        shown=study.operator_sets,
        revision=revisions.ANALYSE,
    script:
        "../scripts/figure.py"


use rule figure2 as figure3 with:
    output:
        png=report(
            "<results>/figures/figure3.png",
            caption="../report/figure3.rst",
            category="1 Commutativity",
            labels={"result": "Figure 3: orders and seeds", "form": "figure"},
        ),
        pdf=report(
            "<results>/figures/figure3.pdf",
            caption="../report/figure3.rst",
            category="1 Commutativity",
            labels={"result": "Figure 3: orders and seeds", "form": "print (PDF)"},
        ),
    log:
        "<logs>/figures/figure3.log",
    params:
        figure="figure3",
        shown=study.operator_sets,
        revision=revisions.ANALYSE,


use rule figure2 as heatmap with:
    output:
        png=report(
            "<results>/figures/table1.png",
            caption="../report/heatmap.rst",
            category="1 Commutativity",
            labels={"result": "Table 1 as a heat map", "form": "figure"},
        ),
        pdf=report(
            "<results>/figures/table1.pdf",
            caption="../report/heatmap.rst",
            category="1 Commutativity",
            labels={"result": "Table 1 as a heat map", "form": "print (PDF)"},
        ),
    log:
        "<logs>/figures/table1.log",
    params:
        figure="table1",
        shown=study.operator_sets,
        revision=revisions.ANALYSE,


use rule figure2 as figure4 with:
    input:
        curves=curves_of_estimates,
    output:
        png=report(
            "<results>/figures/figure4.png",
            caption="../report/figure4.rst",
            category="3 Cumulativeness",
            labels={"result": "Figure 4: estimates", "form": "figure"},
        ),
        pdf=report(
            "<results>/figures/figure4.pdf",
            caption="../report/figure4.rst",
            category="3 Cumulativeness",
            labels={"result": "Figure 4: estimates", "form": "print (PDF)"},
        ),
    log:
        "<logs>/figures/figure4.log",
    params:
        figure="figure4",
        shown=study.estimated_sets,
        revision=revisions.ANALYSE,


use rule figure2 as pareto with:
    input:
        curves=curves_of(study.measured),
    output:
        png=report(
            "<results>/figures/pareto.png",
            caption="../report/pareto.rst",
            category="5 All pipelines",
            labels={"result": "Accuracy against time", "form": "figure"},
        ),
        pdf=report(
            "<results>/figures/pareto.pdf",
            caption="../report/pareto.rst",
            category="5 All pipelines",
            labels={"result": "Accuracy against time", "form": "print (PDF)"},
        ),
    log:
        "<logs>/figures/pareto.log",
    params:
        figure="pareto",
        shown=study.operator_sets,
        revision=revisions.ANALYSE,


use rule figure2 as joint with:
    input:
        curves=curves_compared_jointly,
        exits=exits_compared_jointly,
    output:
        png=report(
            "<results>/figures/costeff.png",
            caption="../report/joint.rst",
            category="4 Joint training",
            labels={"result": "Joint against sequential: curves", "form": "figure"},
        ),
        pdf=report(
            "<results>/figures/costeff.pdf",
            caption="../report/joint.rst",
            category="4 Joint training",
            labels={
                "result": "Joint against sequential: curves",
                "form": "print (PDF)",
            },
        ),
    log:
        "<logs>/figures/costeff.log",
    params:
        figure="joint",
        shown=study.compared_jointly,
        revision=revisions.ANALYSE,


rule study:
    input:
        beside(curves_of(study.measured), ".json"),
    output:
        html=report(
            "<results>/study.html",
            caption="../report/study.rst",
            category="6 Study",
            labels={"result": "Configuration and provenance", "form": "page"},
        ),
    log:
        "<logs>/study.log",
    localrule: True
    params:
        config=study.model_dump(mode="json"),
        revision=revisions.ANALYSE,
    script:
        "../scripts/study.py"
