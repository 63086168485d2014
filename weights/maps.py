"""Literal name tables: our names <-> the names in Hugging Face (HF) checkpoint files.

Nothing else in the project knows an HF name. q, k and v stay separate in both, so that a map is only a renaming.
In the tables `{layer}` stands for 0 ... L - 1, and ALBERT's `{group}` and `{inner}` likewise. What a checkpoint holds
and a task does not use is dropped on purpose, by a name listed here, never by silence.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from minitransformer import albert, bert, dinov2, distilbert, electra, roberta, vit
from minitransformer.system.errors import WeightsError


@dataclass(frozen=True)
class Task:
    """What one task reads of one architecture's checkpoint."""

    model: type[nn.Module]
    architecture: str  # HF's class name, for config.json
    names: dict[str, str]  # our parameter -> HF's
    fresh_head: frozenset[str]  # our parameters that a checkpoint may lack, all together
    dropped: tuple[str, ...]  # prefixes of HF names that this task does not use
    tied: dict[str, str]  # HF name that repeats another -> the name it must equal


@dataclass(frozen=True)
class Architecture:
    """One `model_type` of config.json."""

    config: type
    fields: dict[str, str]  # our config field -> HF's
    constants: dict[str, tuple[Any, ...]]  # HF settings that would change the numbers -> the values that we compute
    prefix: str  # before the encoder's names; files written from a bare encoder lack it
    tasks: dict[str, Task]
    given: dict[str, Any] = dataclasses.field(default_factory=dict)  # our config fields that the model_type decides
    written: dict[str, Any] = dataclasses.field(default_factory=dict)  # HF settings of what we drop, as we save


# ---------------------------------------------------------------------------------------------------- BERT

BERT_FIELDS = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "head_dropout": "classifier_dropout",
    "positions": "max_position_embeddings",
    "segments": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
    "initializer_range": "initializer_range",
    "pad_id": "pad_token_id",
}

BERT_CONSTANTS = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}

BERT_ENCODER = {
    "embeddings.token.weight": "bert.embeddings.word_embeddings.weight",
    "embeddings.position.weight": "bert.embeddings.position_embeddings.weight",
    "embeddings.segment.weight": "bert.embeddings.token_type_embeddings.weight",
    "embeddings.norm.weight": "bert.embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "bert.embeddings.LayerNorm.bias",
    "layers.{layer}.attention.query.weight": "bert.encoder.layer.{layer}.attention.self.query.weight",
    "layers.{layer}.attention.query.bias": "bert.encoder.layer.{layer}.attention.self.query.bias",
    "layers.{layer}.attention.key.weight": "bert.encoder.layer.{layer}.attention.self.key.weight",
    "layers.{layer}.attention.key.bias": "bert.encoder.layer.{layer}.attention.self.key.bias",
    "layers.{layer}.attention.value.weight": "bert.encoder.layer.{layer}.attention.self.value.weight",
    "layers.{layer}.attention.value.bias": "bert.encoder.layer.{layer}.attention.self.value.bias",
    "layers.{layer}.attention.output.weight": "bert.encoder.layer.{layer}.attention.output.dense.weight",
    "layers.{layer}.attention.output.bias": "bert.encoder.layer.{layer}.attention.output.dense.bias",
    "layers.{layer}.attention_norm.weight": "bert.encoder.layer.{layer}.attention.output.LayerNorm.weight",
    "layers.{layer}.attention_norm.bias": "bert.encoder.layer.{layer}.attention.output.LayerNorm.bias",
    "layers.{layer}.ffn_up.weight": "bert.encoder.layer.{layer}.intermediate.dense.weight",
    "layers.{layer}.ffn_up.bias": "bert.encoder.layer.{layer}.intermediate.dense.bias",
    "layers.{layer}.ffn_down.weight": "bert.encoder.layer.{layer}.output.dense.weight",
    "layers.{layer}.ffn_down.bias": "bert.encoder.layer.{layer}.output.dense.bias",
    "layers.{layer}.ffn_norm.weight": "bert.encoder.layer.{layer}.output.LayerNorm.weight",
    "layers.{layer}.ffn_norm.bias": "bert.encoder.layer.{layer}.output.LayerNorm.bias",
}

QA_HEAD = {
    "span.weight": "qa_outputs.weight",
    "span.bias": "qa_outputs.bias",
}

BERT_MLM_HEAD = {
    "transform.weight": "cls.predictions.transform.dense.weight",
    "transform.bias": "cls.predictions.transform.dense.bias",
    "transform_norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "transform_norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "bias": "cls.predictions.bias",
}

BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}

# The pooler fed the next-sentence head; position_ids is a constant of old files; classifiers are of other tasks.
BERT_UNUSED = ("bert.pooler.", "bert.embeddings.position_ids", "cls.seq_relationship.", "classifier.")


def _inside(names: dict[str, str]) -> dict[str, str]:
    """The encoder's names where it is a part, `encoder`, of a model with a head."""
    return {f"encoder.{ours}": hf for ours, hf in names.items()}


def _renamed(names: dict[str, str], prefix: str) -> dict[str, str]:
    """BERT's names in a model that calls its encoder something else."""
    return {ours: prefix + hf.removeprefix("bert.") for ours, hf in names.items()}


def _text_tasks(
    name: str,
    models: tuple[type[nn.Module], type[nn.Module], type[nn.Module]],
    encoder: dict[str, str],
    mlm_head: dict[str, str],
    tied: dict[str, str],
    unused: tuple[str, ...],
) -> dict[str, Task]:
    """The tasks that the text encoders share.

    name: HF's part of its class names; models: for the three tasks, in this order; unused: what belongs to none of
    them, as prefixes.
    """
    encoder_model, reader, language_model = models
    return {
        "encoder": Task(
            model=encoder_model,
            architecture=f"{name}Model",
            names=encoder,
            fresh_head=frozenset(),
            dropped=(*unused, *mlm_head.values(), *tied, *QA_HEAD.values()),
            tied={},
        ),
        "question-answering": Task(
            model=reader,
            architecture=f"{name}ForQuestionAnswering",
            names=_inside(encoder) | QA_HEAD,
            fresh_head=frozenset(QA_HEAD),
            dropped=(*unused, *mlm_head.values(), *tied),
            tied={},
        ),
        "masked-lm": Task(
            model=language_model,
            architecture=f"{name}ForMaskedLM",
            names=_inside(encoder) | mlm_head,
            fresh_head=frozenset(),
            dropped=(*unused, *QA_HEAD.values()),
            tied=tied,
        ),
    }


BERT = Architecture(
    config=bert.BertConfig,
    fields=BERT_FIELDS,
    constants=BERT_CONSTANTS,
    prefix="bert.",
    tasks=_text_tasks(
        name="Bert",
        models=(bert.Bert, bert.BertForQuestionAnswering, bert.BertForMaskedLM),
        encoder=BERT_ENCODER,
        mlm_head=BERT_MLM_HEAD,
        tied=BERT_TIED,
        unused=BERT_UNUSED,
    ),
)

# -------------------------------------------------------------------------------------------------- ALBERT

ALBERT_FIELDS = BERT_FIELDS | {
    "embedding_width": "embedding_size",
    "groups": "num_hidden_groups",
    "inner_layers": "inner_group_num",
    "head_dropout": "classifier_dropout_prob",
}

ALBERT_ENCODER = {
    "embeddings.token.weight": "albert.embeddings.word_embeddings.weight",
    "embeddings.position.weight": "albert.embeddings.position_embeddings.weight",
    "embeddings.segment.weight": "albert.embeddings.token_type_embeddings.weight",
    "embeddings.norm.weight": "albert.embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "albert.embeddings.LayerNorm.bias",
    "widen.weight": "albert.encoder.embedding_hidden_mapping_in.weight",
    "widen.bias": "albert.encoder.embedding_hidden_mapping_in.bias",
} | {
    f"groups.{{group}}.{{inner}}.{ours}.{kind}": (
        f"albert.encoder.albert_layer_groups.{{group}}.albert_layers.{{inner}}.{hf}.{kind}"
    )
    for ours, hf in {
        "attention.query": "attention.query",
        "attention.key": "attention.key",
        "attention.value": "attention.value",
        "attention.output": "attention.dense",
        "attention_norm": "attention.LayerNorm",
        "ffn_up": "ffn",
        "ffn_down": "ffn_output",
        "ffn_norm": "full_layer_layer_norm",
    }.items()
    for kind in ("weight", "bias")
}

ALBERT_MLM_HEAD = {
    "transform.weight": "predictions.dense.weight",
    "transform.bias": "predictions.dense.bias",
    "transform_norm.weight": "predictions.LayerNorm.weight",
    "transform_norm.bias": "predictions.LayerNorm.bias",
    "bias": "predictions.bias",
}

ALBERT_TIED = {
    "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
    "predictions.decoder.bias": "predictions.bias",
}

# The pooler fed the sentence-order head, whose pre-training task we do not run.
ALBERT_UNUSED = ("albert.pooler.", "albert.embeddings.position_ids", "sop_classifier.", "classifier.")

ALBERT = Architecture(
    config=albert.AlbertConfig,
    fields=ALBERT_FIELDS,
    constants=BERT_CONSTANTS,
    prefix="albert.",
    tasks=_text_tasks(
        name="Albert",
        models=(albert.Albert, albert.AlbertForQuestionAnswering, albert.AlbertForMaskedLM),
        encoder=ALBERT_ENCODER,
        mlm_head=ALBERT_MLM_HEAD,
        tied=ALBERT_TIED,
        unused=ALBERT_UNUSED,
    ),
)

# --------------------------------------------------------------------- RoBERTa, XLM-RoBERTa and CamemBERT

ROBERTA_FIELDS = {ours: hf for ours, hf in BERT_FIELDS.items() if ours != "positions"} | {
    "position_rows": "max_position_embeddings",
}

ROBERTA_MLM_HEAD = {
    "transform.weight": "lm_head.dense.weight",
    "transform.bias": "lm_head.dense.bias",
    "transform_norm.weight": "lm_head.layer_norm.weight",
    "transform_norm.bias": "lm_head.layer_norm.bias",
    "bias": "lm_head.bias",
}

ROBERTA_TIED = {
    "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}

# The pooler was never trained: the class that wrote the file had one.
ROBERTA_UNUSED = ("roberta.pooler.", "roberta.embeddings.position_ids", "classifier.")


def _roberta(model_type: str, name: str) -> Architecture:
    """RoBERTa under one of its three names; `name` is HF's part of its class names."""
    return Architecture(
        config=roberta.RobertaConfig,
        fields=ROBERTA_FIELDS,
        constants=BERT_CONSTANTS,
        prefix="roberta.",
        tasks=_text_tasks(
            name=name,
            models=(roberta.Roberta, roberta.RobertaForQuestionAnswering, roberta.RobertaForMaskedLM),
            encoder=_renamed(BERT_ENCODER, "roberta."),
            mlm_head=ROBERTA_MLM_HEAD,
            tied=ROBERTA_TIED,
            unused=ROBERTA_UNUSED,
        ),
        given={"model_type": model_type},
    )


ROBERTA = _roberta("roberta", "Roberta")
XLM_ROBERTA = _roberta("xlm-roberta", "XLMRoberta")
CAMEMBERT = _roberta("camembert", "Camembert")

# ---------------------------------------------------------------------------------------------- DistilBERT

DISTILBERT_FIELDS = {
    "vocabulary": "vocab_size",
    "width": "dim",
    "layers": "n_layers",
    "heads": "n_heads",
    "ffn_width": "hidden_dim",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "head_dropout": "qa_dropout",
    "positions": "max_position_embeddings",
    "initializer_range": "initializer_range",
    "pad_id": "pad_token_id",
}

DISTILBERT_ENCODER = {
    "embeddings.token.weight": "distilbert.embeddings.word_embeddings.weight",
    "embeddings.position.weight": "distilbert.embeddings.position_embeddings.weight",
    "embeddings.norm.weight": "distilbert.embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "distilbert.embeddings.LayerNorm.bias",
} | {
    f"layers.{{layer}}.{ours}.{kind}": f"distilbert.transformer.layer.{{layer}}.{hf}.{kind}"
    for ours, hf in {
        "attention.query": "attention.q_lin",
        "attention.key": "attention.k_lin",
        "attention.value": "attention.v_lin",
        "attention.output": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "ffn_up": "ffn.lin1",
        "ffn_down": "ffn.lin2",
        "ffn_norm": "output_layer_norm",
    }.items()
    for kind in ("weight", "bias")
}

DISTILBERT_MLM_HEAD = {
    "transform.weight": "vocab_transform.weight",
    "transform.bias": "vocab_transform.bias",
    "transform_norm.weight": "vocab_layer_norm.weight",
    "transform_norm.bias": "vocab_layer_norm.bias",
    "bias": "vocab_projector.bias",
}

DISTILBERT = Architecture(
    config=distilbert.DistilBertConfig,
    fields=DISTILBERT_FIELDS,
    constants={"tie_word_embeddings": (True,)},
    prefix="distilbert.",
    tasks=_text_tasks(
        name="DistilBert",
        models=(
            distilbert.DistilBert,
            distilbert.DistilBertForQuestionAnswering,
            distilbert.DistilBertForMaskedLM,
        ),
        encoder=DISTILBERT_ENCODER,
        mlm_head=DISTILBERT_MLM_HEAD,
        tied={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
        unused=("distilbert.embeddings.position_ids", "pre_classifier.", "classifier."),
    ),
    given={"norm_eps": 1e-12},
)

# ------------------------------------------------------------------------------------------------- ELECTRA

ELECTRA_ENCODER = _renamed(BERT_ENCODER, "electra.") | {
    "widen.weight": "electra.embeddings_project.weight",
    "widen.bias": "electra.embeddings_project.bias",
}

PROJECTION = ("widen.weight", "widen.bias")  # absent where the embeddings are as wide as the model

ELECTRA_MLM_HEAD = {
    "transform.weight": "generator_predictions.dense.weight",
    "transform.bias": "generator_predictions.dense.bias",
    "transform_norm.weight": "generator_predictions.LayerNorm.weight",
    "transform_norm.bias": "generator_predictions.LayerNorm.bias",
    "bias": "generator_lm_head.bias",
}

ELECTRA = Architecture(
    config=electra.ElectraConfig,
    fields=BERT_FIELDS | {"embedding_width": "embedding_size"},
    constants=BERT_CONSTANTS,
    prefix="electra.",
    tasks=_text_tasks(
        name="Electra",
        models=(electra.Electra, electra.ElectraForQuestionAnswering, electra.ElectraForMaskedLM),
        encoder=ELECTRA_ENCODER,
        mlm_head=ELECTRA_MLM_HEAD,
        tied={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
        # What told replaced tokens from real ones served the training alone.
        unused=("electra.embeddings.position_ids", "discriminator_predictions.", "classifier."),
    ),
)

# --------------------------------------------------------------------------------------------- ViT and DeiT

VIT_FIELDS = {
    "image_size": "image_size",
    "patch": "patch_size",
    "channels": "num_channels",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn_width": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "norm_eps": "layer_norm_eps",
    "qkv_bias": "qkv_bias",
    "initializer_range": "initializer_range",
    "classes": "num_labels",
}

VIT_ENCODER = {
    "embeddings.cls": "vit.embeddings.cls_token",
    "embeddings.position": "vit.embeddings.position_embeddings",
    "embeddings.patches.weight": "vit.embeddings.patch_embeddings.projection.weight",
    "embeddings.patches.bias": "vit.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "vit.layernorm.weight",
    "norm.bias": "vit.layernorm.bias",
} | {
    f"blocks.{{layer}}.{ours}.{kind}": f"vit.encoder.layer.{{layer}}.{hf}.{kind}"
    for ours, hf in {
        "attention_norm": "layernorm_before",
        "attention.query": "attention.attention.query",
        "attention.key": "attention.attention.key",
        "attention.value": "attention.attention.value",
        "attention.output": "attention.output.dense",
        "ffn_norm": "layernorm_after",
        "ffn_up": "intermediate.dense",
        "ffn_down": "output.dense",
    }.items()
    for kind in ("weight", "bias")
}
QKV_BIAS = (".attention.query.bias", ".attention.key.bias", ".attention.value.bias")  # absent where qkv_bias is false

DEIT_ENCODER = {ours: hf.replace("vit.", "deit.", 1) for ours, hf in VIT_ENCODER.items()} | {
    "embeddings.distillation": "deit.embeddings.distillation_token",
}

CLASSIFIER = {"classifier.weight": "classifier.weight", "classifier.bias": "classifier.bias"}
TWO_CLASSIFIERS = {
    "classifier.weight": "cls_classifier.weight",
    "classifier.bias": "cls_classifier.bias",
    "distillation_classifier.weight": "distillation_classifier.weight",
    "distillation_classifier.bias": "distillation_classifier.bias",
}
CLASSIFIERS = ("classifier.", "cls_classifier.", "distillation_classifier.")


def _image_tasks(
    name: str, models: tuple[type[nn.Module], type[nn.Module]], prefix: str, encoder: dict[str, str]
) -> dict[str, Task]:
    """The tasks that the image encoders share; `name` is HF's part of its class names, `models` is in their order."""
    encoder_model, classifier = models
    unused = (f"{prefix}pooler.", f"{prefix}embeddings.mask_token")  # of other pre-training
    return {
        "encoder": Task(
            model=encoder_model,
            architecture=f"{name}Model",
            names=encoder,
            fresh_head=frozenset(),
            dropped=(*unused, *CLASSIFIERS),
            tied={},
        ),
        "image-classification": Task(
            model=classifier,
            architecture=f"{name}ForImageClassification",
            names=_inside(encoder) | CLASSIFIER,
            fresh_head=frozenset(CLASSIFIER),
            dropped=unused,
            tied={},
        ),
    }


VIT_MODELS = (vit.Vit, vit.VitForImageClassification)

VIT = Architecture(
    config=vit.VitConfig,
    fields=VIT_FIELDS,
    constants={},
    prefix="vit.",
    tasks=_image_tasks("ViT", VIT_MODELS, "vit.", VIT_ENCODER),
    given={"distilled": False},
)

DEIT = Architecture(
    config=vit.VitConfig,
    fields=VIT_FIELDS,
    constants={},
    prefix="deit.",
    tasks=_image_tasks("DeiT", VIT_MODELS, "deit.", DEIT_ENCODER)
    | {
        "image-classification with teacher": Task(
            model=vit.DeitWithTeacher,
            architecture="DeiTForImageClassificationWithTeacher",
            names=_inside(DEIT_ENCODER) | TWO_CLASSIFIERS,
            fresh_head=frozenset(),
            dropped=("deit.pooler.", "deit.embeddings.mask_token"),
            tied={},
        )
    },
    given={"distilled": True},
)

# ------------------------------------------------------------------------------------------------- DINOv2

DINOV2_FIELDS = {ours: hf for ours, hf in VIT_FIELDS.items() if ours != "ffn_width"} | {"ffn_ratio": "mlp_ratio"}

DINOV2_ENCODER = (
    {ours: hf.replace("vit.", "dinov2.", 1) for ours, hf in VIT_ENCODER.items()}
    | {
        f"blocks.{{layer}}.{ours}.{kind}": f"dinov2.encoder.layer.{{layer}}.{hf}.{kind}"
        for ours, hf in {
            "attention_norm": "norm1",
            "ffn_norm": "norm2",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        }.items()
        for kind in ("weight", "bias")
    }
    | {
        "blocks.{layer}.attention_scale.weight": "dinov2.encoder.layer.{layer}.layer_scale1.lambda1",
        "blocks.{layer}.ffn_scale.weight": "dinov2.encoder.layer.{layer}.layer_scale2.lambda1",
    }
)

DINOV2 = Architecture(
    config=dinov2.Dinov2Config,
    fields=DINOV2_FIELDS,
    constants={"use_swiglu_ffn": (False,)},
    prefix="dinov2.",
    tasks=_image_tasks("Dinov2", (dinov2.Dinov2, dinov2.Dinov2ForImageClassification), "dinov2.", DINOV2_ENCODER),
    written={"use_mask_token": False},
)

ARCHITECTURES = {
    "bert": BERT,
    "albert": ALBERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "vit": VIT,
    "deit": DEIT,
    "dinov2": DINOV2,
}


# ---------------------------------------------------------------------------------------------------- use

# TensorFlow's names for a LayerNorm's parameters, in the oldest PyTorch files.
OLD_ENDINGS = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}


KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
# The most of each setting that a model may ask for, above every public one: checked before anything is built.
LARGEST = {
    "vocabulary": 2**22,
    "width": 2**15,
    "embedding_width": 2**15,
    "ffn_width": 2**18,
    "ffn_ratio": 64,
    "layers": 512,
    "groups": 64,
    "inner_layers": 8,
    "heads": 1024,
    "positions": 2**20,
    "position_rows": 2**20,
    "segments": 1024,
    "pad_id": 2**22,
    "image_size": 2**14,
    "patch": 2**14,
    "channels": 1024,
    "classes": 2**17,
    "dropout": 1.0,
    "attention_dropout": 1.0,
    "head_dropout": 1.0,
    "norm_eps": 1.0,
    "initializer_range": 10.0,
}


def expand(names: dict[str, str], config: Any) -> dict[str, str]:
    """A table with every `{layer}`, `{group}` and `{inner}` written out, as often as the configuration says."""
    for place, count in (("{layer}", "layers"), ("{group}", "groups"), ("{inner}", "inner_layers")):
        names = {
            ours.replace(place, str(number)): hf.replace(place, str(number))
            for ours, hf in names.items()
            for number in (range(getattr(config, count)) if place in ours else [0])
        }
    absent = () if getattr(config, "qkv_bias", True) else QKV_BIAS
    absent += () if getattr(config, "widens", True) else PROJECTION
    return {ours: hf for ours, hf in names.items() if not ours.endswith(absent)}


def modern_name(name: str) -> str:
    """A name from a file, with an old LayerNorm ending replaced."""
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def find(model: nn.Module) -> tuple[str, Architecture, str, Task]:
    """The model_type, architecture, task name and task that a model of ours belongs to."""
    for model_type, architecture in ARCHITECTURES.items():
        for name, task in architecture.tasks.items():
            if type(model) is not task.model:
                continue
            if all(getattr(model.config, key) == value for key, value in architecture.given.items()):
                return model_type, architecture, name, task
    raise WeightsError(f"{type(model).__name__} is not one of our models: it has no table of names in weights/maps.py")


def config_from_hf(architecture: Architecture, settings: dict[str, Any], where: str) -> Any:
    """Our configuration out of config.json's settings. WeightsError names the setting that cannot be."""
    for key, known in architecture.constants.items():
        if settings.get(key, known[0]) not in known:
            raise WeightsError(
                f"{where}: {key} is {settings[key]!r}, which this model does not compute (only {known[0]!r})"
            )

    values = dict(architecture.given)
    for field in dataclasses.fields(architecture.config):
        if field.name in values:
            continue
        key = architecture.fields[field.name]
        value = settings.get(key)
        if value is None:  # absent, or null: HF's default, which is ours
            continue
        if field.type is float and type(value) is int and abs(value) <= LARGEST[field.name]:
            value = float(value)
        if field.type is int and isinstance(value, list) and len(set(map(str, value))) == 1:  # image_size: [224, 224]
            value = value[0]
        if type(value) is not field.type:
            raise WeightsError(f"{where}: {key} is {value!r}, not {KINDS[field.type]}")
        values[field.name] = value
    head_dropout = architecture.fields.get("head_dropout", "")
    if head_dropout.startswith("classifier_dropout") and "head_dropout" not in values and "dropout" in values:
        values["head_dropout"] = values["dropout"]  # as HF reads null; DistilBERT's qa_dropout has its own default
    return _checked(architecture.config(**values), architecture.fields, where)


def _checked(config: Any, fields: dict[str, str], where: str) -> Any:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        lowest = 1 if field.type is int and field.name != "pad_id" else 0
        if field.type in (int, float) and not lowest <= value <= LARGEST[field.name]:  # NaN is not either
            wrong = "not a probability" if field.name.endswith("dropout") else "which no model has"
            raise WeightsError(f"{where}: {fields[field.name]} is {value}, {wrong}")
    if "pad_id" in fields and config.pad_id >= config.vocabulary:
        raise WeightsError(
            f"{where}: {fields['pad_id']} {config.pad_id} is outside the {fields['vocabulary']} of {config.vocabulary}"
        )
    if "position_rows" in fields and config.positions < 1:
        raise WeightsError(
            f"{where}: {fields['position_rows']} {config.position_rows} leaves no position above "
            f"{fields['pad_id']} {config.pad_id}"
        )
    if config.activation not in bert.ACTIVATIONS:
        known = ", ".join(bert.ACTIVATIONS)
        raise WeightsError(f"{where}: unknown {fields['activation']} {config.activation!r}; known are {known}")
    if config.width % config.heads:
        raise WeightsError(
            f"{where}: {fields['width']} {config.width} is not a multiple of {fields['heads']} {config.heads}"
        )
    if "patch" in fields and (config.image_size % config.patch or config.image_size < config.patch):
        raise WeightsError(
            f"{where}: {fields['image_size']} {config.image_size} is not a multiple of {fields['patch']} {config.patch}"
        )
    return config


def config_to_hf(architecture: Architecture, config: Any) -> dict[str, Any]:
    """config.json's settings out of our configuration."""
    return {hf: getattr(config, ours) for ours, hf in architecture.fields.items()} | architecture.written
