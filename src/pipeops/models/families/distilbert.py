"""DistilBERT: BERT's layers under other names, without segments."""

from pipeops.models.families.declaration import Classifier, Family, Head, Keys
from pipeops.models.families.post_norm import PostNorm

DISTILBERT = Family(
    name="distilbert",
    prefix="DistilBert",
    encoder="Bert",
    pooler=True,
    layout=PostNorm,
    layout_of=lambda _: PostNorm(),
    keys=Keys(
        layers="n_layers",
        hidden_size="dim",
        heads="n_heads",
        ffn_size="hidden_dim",
        segments="",
        activation="activation",
        norm_eps="",
        dropout="dropout",
        attention_dropout="attention_dropout",
        classifier_dropout="seq_classif_dropout",
    ),
    head=Head(activation="relu"),
    classifier=Classifier(dense="pre_classifier", projection="classifier"),
    renamed=(
        (r"^transformer\.layer\.", "encoder.layer."),
        (r"\.attention\.q_lin\.", ".attention.self.query."),
        (r"\.attention\.k_lin\.", ".attention.self.key."),
        (r"\.attention\.v_lin\.", ".attention.self.value."),
        (r"\.attention\.out_lin\.", ".attention.output.dense."),
        (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
        (r"\.ffn\.lin1\.", ".intermediate.dense."),
        (r"\.ffn\.lin2\.", ".output.dense."),
        (r"\.output_layer_norm\.", ".output.LayerNorm."),
    ),
    # One segment for all tokens, which says nothing.
    zeros=("embeddings.token_type_embeddings.weight",),
)
