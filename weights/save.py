"""Save checkpoint folders in HF layout, which transformers and `load_pretrained` load as they are."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from minitransformer.system import files
from minitransformer.system.errors import WeightsError
from weights import maps
from weights.folder import safetensors_bytes
from weights.tokenizer import special_tokens


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    labels: list[str] | None = None,
    answering: dict[str, float | str] | None = None,
) -> None:
    """Write config.json, model.safetensors and, if given, the tokenizer and the class names.

    answering: how the model is to be asked, for qa/answerer.py; transformers does not look at it.

    Numbers are written as the model has them; config.json asks for float32 to be made of them.
    Every file appears whole or not at all; config.json, without which a folder is no checkpoint, comes last.
    Raises WeightsError on a model whose numbers are not finite: it would answer, and nobody would know.
    """
    folder = Path(folder)
    model_type, architecture, _, task = maps.find(model)
    tensors = {hf: model.get_parameter(ours).detach() for ours, hf in maps.expand(task.names, model.config).items()}
    for hf, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{hf} is not finite: {folder} was not written; lower the learning rate")

    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder, model.config)
    files.write_bytes(folder / "model.safetensors", safetensors_bytes(tensors))
    settings: dict[str, Any] = {"model_type": model_type, "architectures": [task.architecture], "dtype": "float32"}
    if labels is not None:
        settings["id2label"] = {str(number): label for number, label in enumerate(labels)}
        settings["label2id"] = {label: number for number, label in enumerate(labels)}
    if answering is not None:
        settings["answering"] = answering
    files.write_json(folder / "config.json", settings | maps.config_to_hf(architecture, model.config))


def _save_tokenizer(tokenizer: Tokenizer, folder: Path, config: Any) -> None:
    files.write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    special = special_tokens(tokenizer)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "cls_token": special.cls,
        "sep_token": special.sep,
        "pad_token": special.pad,
        "unk_token": special.unk,
        "mask_token": special.mask,
        "model_max_length": config.positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    if getattr(config, "segments", 1) == 1:
        settings["model_input_names"].remove("token_type_ids")  # transformers' DistilBERT does not know the argument
    settings = {key: value for key, value in settings.items() if value is not None}
    files.write_json(folder / "tokenizer_config.json", settings)
