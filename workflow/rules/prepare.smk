"""Backbones and data: fetched, checked or generated once, shared by every job."""


rule rows:
    input:
        source_files,
    output:
        multiext("<results>/rows/{dataset}/", *jobs.ROWS),
    log:
        "<logs>/rows/{dataset}.log",
    benchmark:
        "<logs>/rows/{dataset}.tsv"
    wildcard_constraints:
        dataset=OWN,
    # What is found in the data should be seen before anything runs long.
    priority: 50
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        arguments=lambda wildcards: jobs.rows(study, wildcards.dataset),
        folder=subpath(output[0], parent=True),
        revision=revisions.ROWS,
    message:
        "read the rows of {wildcards.dataset}"
    shell:
        "pipeops rows {params.arguments:q} --output {params.folder:q} 2>&1 | tee {log:q}"


if PRETRAINED_ON_OWN:

    rule pretrain:
        input:
            rows=expand(
                "<results>/rows/{dataset}/train.parquet", dataset=study.own_datasets
            ),
        output:
            multiext(f"<results>/{jobs.BASE}", *jobs.BACKBONE),
        log:
            "<logs>/backbones/base.log",
        benchmark:
            "<logs>/backbones/base.tsv"
        threads: study.pretraining.threads
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            arguments=jobs.backbone(study),
            rows=lambda wildcards, input: [
                text for path in input.rows for text in ("--rows", path)
            ],
            folder=subpath(output[0], parent=True),
            revision=revisions.BACKBONE,
        message:
            f"pretrain the backbone {study.model.backbone} on the texts of {', '.join(study.own_datasets)}"
        shell:
            "pipeops backbone {params.arguments:q} {params.rows:q} --output {params.folder:q} > {log:q} 2>&1"

else:

    rule backbone:
        output:
            multiext(f"<results>/{jobs.BASE}", *jobs.BACKBONE),
        log:
            "<logs>/backbones/base.log",
        benchmark:
            "<logs>/backbones/base.tsv"
        threads: study.pretraining.threads
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            arguments=jobs.backbone(study),
            folder=subpath(output[0], parent=True),
            revision=revisions.BACKBONE,
        message:
            f"prepare the backbone {study.model.backbone}"
        shell:
            "pipeops backbone {params.arguments:q} --output {params.folder:q} > {log:q} 2>&1"


rule classifier:
    output:
        multiext(f"<results>/{CLASSIFIER}", *jobs.BACKBONE),
    log:
        "<logs>/backbones/classifier.log",
    benchmark:
        "<logs>/backbones/classifier.tsv"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        source=study.model.backbone,
        folder=subpath(output[0], parent=True),
        revision=revisions.BACKBONE,
    message:
        f"fetch the classifier {study.model.backbone}"
    shell:
        "pipeops backbone {params.source:q} --classifier --output {params.folder:q} > {log:q} 2>&1"


rule student:
    input:
        teacher=together(f"<results>/{jobs.BASE}", USED_BACKBONE),
    output:
        multiext(f"<results>/{STUDENT}", *jobs.BACKBONE),
    log:
        "<logs>/backbones/student.log",
    benchmark:
        "<logs>/backbones/student.tsv"
    # A student that does not fit should be seen before anything runs long.
    priority: 50
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        source=study.model.student,
        teacher=input_folder("teacher"),
        folder=subpath(output[0], parent=True),
        revision=revisions.BACKBONE,
    message:
        f"fetch the student {study.model.student}"
    shell:
        "pipeops backbone {params.source:q} --teacher {params.teacher:q} --output {params.folder:q} > {log:q} 2>&1"


rule vocabulary:
    input:
        unpack(vocabulary_inputs),
    output:
        *[
            f"<results>/vocabulary/{{dataset}}/backbones/{name}/{file}"
            for name in jobs.pruned_backbones(study)
            for file in jobs.VOCABULARY
        ],
    log:
        "<logs>/vocabulary/{dataset}.log",
    benchmark:
        "<logs>/vocabulary/{dataset}.tsv"
    # A tokenizer that cannot be pruned should be seen before anything runs long.
    priority: 50
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        arguments=lambda wildcards: jobs.vocabulary(study, wildcards.dataset),
        inputs=vocabulary_input_options,
        folder=lambda wildcards, output: str(Path(output[0]).parents[1]),
        revision=revisions.VOCABULARY,
    message:
        "prune the vocabulary to the training texts of {wildcards.dataset}"
    shell:
        "pipeops vocabulary {params.arguments:q} {params.inputs:q} --output {params.folder:q} 2>&1 | tee {log:q}"


rule tokenise:
    input:
        backbone=together(f"<results>/{jobs.BASE}", USED_BACKBONE),
    output:
        "<results>/data/{dataset}/{split}.parquet",
    log:
        "<logs>/data/{dataset}/{split}.log",
    benchmark:
        "<logs>/data/{dataset}/{split}.tsv"
    wildcard_constraints:
        dataset="|".join(TASKS),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        arguments=lambda wildcards: jobs.tokenise(
            study, wildcards.dataset, wildcards.split
        ),
        backbone=input_folder("backbone"),
        revision=lambda wildcards: (
            revisions.TOKENISE + TASKS[wildcards.dataset].revision
        ),
    message:
        "tokenise {wildcards.dataset}, {wildcards.split} split"
    shell:
        "pipeops tokenise {params.arguments:q} --backbone {params.backbone:q} --output {output:q} > {log:q} 2>&1"


rule tokenise_own:
    input:
        backbone=together(f"<results>/{jobs.BASE}", USED_BACKBONE),
        rows="<results>/rows/{dataset}/{split}.parquet",
        about="<results>/rows/{dataset}/about.json",
    output:
        "<results>/data/{dataset}/{split}.parquet",
    log:
        "<logs>/data/{dataset}/{split}.log",
    benchmark:
        "<logs>/data/{dataset}/{split}.tsv"
    wildcard_constraints:
        dataset=OWN,
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        arguments=lambda wildcards: jobs.tokenise(
            study, wildcards.dataset, wildcards.split
        ),
        backbone=input_folder("backbone"),
        revision=revisions.TOKENISE,
    message:
        "tokenise {wildcards.dataset}, {wildcards.split} split"
    shell:
        "pipeops tokenise {params.arguments:q} --backbone {params.backbone:q} --rows {input.rows:q} --output {output:q}"
        " 2>&1 | tee {log:q}"


use rule tokenise as tokenise_pruned with:
    input:
        backbone=PRUNED_BACKBONE,
    output:
        f"<results>/{PRUNED}data/{{dataset}}/{{split}}.parquet",
    log:
        f"<logs>/{PRUNED}data/{{dataset}}/{{split}}.log",
    benchmark:
        f"<logs>/{PRUNED}data/{{dataset}}/{{split}}.tsv"


use rule tokenise_own as tokenise_own_pruned with:
    input:
        backbone=PRUNED_BACKBONE,
        rows="<results>/rows/{dataset}/{split}.parquet",
        about="<results>/rows/{dataset}/about.json",
    output:
        f"<results>/{PRUNED}data/{{dataset}}/{{split}}.parquet",
    log:
        f"<logs>/{PRUNED}data/{{dataset}}/{{split}}.log",
    benchmark:
        f"<logs>/{PRUNED}data/{{dataset}}/{{split}}.tsv"
