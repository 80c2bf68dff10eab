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
    message:
        "pool the seeds of {wildcards.pipeline}, {wildcards.dataset}"
    script:
        "../scripts/pool.py"


for analysis in (*TABLES, *FIGURES):

    rule:
        name:
            analysis.name
        input:
            unpack(analysed(analysis)),
        output:
            **written(analysis),
        log:
            f"<logs>/{analysis.path('log')}",
        localrule: True
        params:
            target=analysis.target,
            datasets=study.datasets,
            seeds=study.seeds,
            shown=analysis.shown(study),
            revision=revisions.ANALYSE,
        message:
            f"{analysis.title}"
        script:
            "../scripts/analyse.py"


rule study:
    input:
        beside(curves_of(study.measured), ".json"),
    output:
        html=report(
            "<results>/study.html",
            caption="../report/study.rst",
            category=STUDY,
            labels={"result": "Configuration and provenance", "form": "page"},
        ),
    log:
        "<logs>/study.log",
    localrule: True
    params:
        config=study.model_dump(mode="json"),
        revision=revisions.ANALYSE,
    message:
        "describe the study"
    script:
        "../scripts/study.py"
