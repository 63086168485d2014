"""Checkpoints of the library timm, read as if transformers had written them.

timm's ViT holds query, key and value in one matrix and has names of its own; its config.json tells the sizes by the
name of the architecture, deit_small_distilled_patch16_224.
"""

import re
from typing import Any

from torch import Tensor

from minitransformer.system.errors import WeightsError

WIDTHS = {"tiny": 192, "small": 384, "base": 768}  # with heads of 64, and feed-forward parts of four times the width

BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
NAMES = {
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
HEADS = {
    False: {"head.weight": "classifier.weight", "head.bias": "classifier.bias"},
    True: {
        "head.weight": "cls_classifier.weight",
        "head.bias": "cls_classifier.bias",
        "head_dist.weight": "distillation_classifier.weight",
        "head_dist.bias": "distillation_classifier.bias",
    },
}
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # Pillow's numbers


def as_hf(settings: dict[str, Any]) -> dict[str, Any]:
    """config.json's settings in transformers' words, where they are timm's and of a ViT or DeiT; else as they are."""
    name = str(settings.get("architecture"))
    match = re.match(r"(vit|deit)_(tiny|small|base)(_distilled)?_patch(\d+)_(\d+)$", name)
    if "model_type" in settings or not match:
        return settings
    _, size, distilled, patch, image_size = match.groups()
    width = WIDTHS[size]
    return {
        "model_type": "deit" if distilled else "vit",
        "architectures": ["DeiTForImageClassificationWithTeacher" if distilled else "ViTForImageClassification"],
        "hidden_size": width,
        "num_hidden_layers": 12,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "patch_size": int(patch),
        "image_size": int(image_size),
        "layer_norm_eps": 1e-6,
        "num_labels": settings.get("num_classes") or 1000,  # 0: an encoder without a head; the number is not used then
    }


def pictures_as_hf(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """preprocessor_config.json's settings out of the pretrained_cfg of timm's config.json; empty where it has none.

    The shorter side is made a little longer than the model's input, 1 / crop_pct of it, and the middle cut out.
    """
    trained = settings.get("pretrained_cfg")
    if "model_type" in settings or not isinstance(trained, dict):
        return {}
    try:
        side, share, method = trained["input_size"][-1], trained["crop_pct"], trained["interpolation"]
        return {
            "size": {"shortest_edge": int(side / share)},
            "resample": RESAMPLE[method],
            "do_center_crop": True,
            "crop_size": side,
            "image_mean": trained["mean"],
            "image_std": trained["std"],
        }
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise WeightsError(f"{where}: pretrained_cfg cannot be read ({error!r}); fetch the file again") from error


def tensors_as_hf(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under transformers' names if they have timm's, query, key and value apart; else as they are.

    prefix: "vit." or "deit.".
    """
    if "patch_embed.proj.weight" not in tensors:
        return tensors
    renamed = {}
    heads = HEADS["dist_token" in tensors]
    for name, tensor in tensors.items():
        block = re.match(r"blocks\.(\d+)\.(.+)\.(weight|bias)$", name)
        if name in heads:
            renamed[heads[name]] = tensor
        elif name in NAMES:
            renamed[prefix + NAMES[name]] = tensor
        elif block and block[2] == "attn.qkv" and tensor.dim() and len(tensor) % 3 == 0:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[f"{prefix}encoder.layer.{block[1]}.attention.attention.{part}.{block[3]}"] = rows.clone()
        elif block and block[2] in BLOCK:
            renamed[f"{prefix}encoder.layer.{block[1]}.{BLOCK[block[2]]}.{block[3]}"] = tensor
        else:
            renamed[name] = tensor  # the check of the names will name it
    return renamed
