"""From measurements to answers. Cheap: thin scripts around pure functions."""

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
            parameters=analysis.parameters(study),
            rule_of_exits=jobs.rule_of_exits(study) if analysis.replays else None,
            revision=revisions.ANALYSE,
        message:
            f"{analysis.title}"
        script:
            "../scripts/analyse.py"


rule study:
    input:
        details=beside(curves_of(study.measured), ".json"),
        verdicts="<results>/commutativity.csv",
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
