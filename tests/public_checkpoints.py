"""The checkpoints of the table as their repositories have them, file for file and name for name, but tiny."""

import dataclasses
import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from hub_server import HubServer
from tiny import CITIES, COUNTRIES, VOCABULARY, WORDS, train_spiece
from weights.checkpoints import CHECKPOINTS, Checkpoint, File

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PR_COMMIT = "5156f763" + 32 * "0"  # of ParsBERT's pull request; its end is not known to us
PREPROCESSOR = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "DeiTFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 256,
}


def publish(server: HubServer, name: str, home: Path) -> Checkpoint:
    """Serve a checkpoint of the table at its revisions. Returns its line, with the sizes of these files."""
    checkpoint = CHECKPOINTS[name]
    folder = home / name
    BUILDERS[name](folder)
    server.add(checkpoint.repository, folder, checkpoint.files[0].revision)
    if name == "parsbert":
        pull_request = home / "parsbert-pr"
        shutil.copytree(folder, pull_request)
        tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
        save(
            pull_request / "model.safetensors", {key: tensor for key, tensor in tensors.items() if "decoder" not in key}
        )
        server.add(checkpoint.repository, pull_request, "refs/pr/1", PR_COMMIT)
    return fitted(server, checkpoint)


def fitted(server: HubServer, checkpoint: Checkpoint) -> Checkpoint:
    """The line of the table, with the sizes of the files that the server has, and without sha256."""

    def fit(file: File) -> File:
        folder = server.revisions[checkpoint.repository, file.revision].folder
        return dataclasses.replace(file, size=(folder / file.name).stat().st_size, sha256="")

    return dataclasses.replace(
        checkpoint, files=tuple(map(fit, checkpoint.files)), weights=tuple(map(fit, checkpoint.weights))
    )


def parsbert(folder: Path) -> None:
    """config.json, pytorch_model.bin, vocab.txt."""
    config = transformers.BertConfig(vocab_size=len(VOCABULARY), **SIZES)
    tensors = write(folder, transformers.BertForPreTraining(config))
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]  # the same memory
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    tensors["bert.embeddings.position_ids"] = torch.arange(512)[None]
    # The file is of 2020, of a PyTorch that did not write zip archives yet.
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "vocab.txt").write_text("".join(piece + "\n" for piece in VOCABULARY), encoding="utf-8")


def albert_fa(folder: Path) -> None:
    """config.json, pytorch_model.bin, spiece.model, spiece.vocab."""
    texts = [f"شهر {city} پایتخت {country} است. {' '.join(WORDS)} کجاست؟" for city in CITIES for country in COUNTRIES]
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(train_spiece(texts, vocab_size=120))
    (folder / "spiece.vocab").write_text("<pad>\t0\n")
    config = transformers.AlbertConfig(
        vocab_size=130,
        embedding_size=16,
        hidden_act="gelu_new",
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
        **SIZES,
    )
    tensors = write(folder, transformers.AlbertForPreTraining(config))
    tensors["predictions.decoder.weight"] = tensors["albert.embeddings.word_embeddings.weight"]
    tensors["predictions.decoder.bias"] = tensors["predictions.bias"]
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def deit_small(folder: Path) -> None:
    """config.json, pytorch_model.bin, preprocessor_config.json."""
    config = transformers.DeiTConfig(image_size=32, patch_size=16, num_labels=7, **SIZES)
    model = transformers.DeiTForImageClassificationWithTeacher(config)
    torch.save(write(folder, model), folder / "pytorch_model.bin")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))


def deit_small_timm(folder: Path) -> None:
    """config.json, model.safetensors: DeiT-tiny, since the name of the architecture decides the sizes."""
    width, layers = 192, 12
    shapes = {
        "cls_token": (1, 1, width),
        "dist_token": (1, 1, width),
        "pos_embed": (1, 2 + 4, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (7, width),
        "head.bias": (7,),
        "head_dist.weight": (7, width),
        "head_dist.bias": (7,),
    }
    block = {
        "norm1": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "norm2": (width,),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    for layer in range(layers):
        for part, shape in block.items():
            shapes |= {f"blocks.{layer}.{part}.weight": shape, f"blocks.{layer}.{part}.bias": shape[:1]}
    folder.mkdir(parents=True)
    save(folder / "model.safetensors", {name: 0.05 * torch.rand(shape) for name, shape in shapes.items()})
    config = {"architecture": "deit_tiny_distilled_patch16_32", "num_classes": 7, "num_features": width}
    (folder / "config.json").write_text(json.dumps(config))


def e5_small(folder: Path) -> None:
    """config.json, model.safetensors, tokenizer.json, tokenizer_config.json."""
    config = transformers.BertConfig(vocab_size=len(VOCABULARY), **SIZES)
    save(folder / "model.safetensors", write(folder, transformers.BertModel(config)))
    vocabulary = {piece: number for number, piece in enumerate(VOCABULARY)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)


def write(folder: Path, model: transformers.PreTrainedModel) -> dict[str, Tensor]:
    """config.json as transformers writes it; the tensors, under the names of files."""
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return tensors


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, path, metadata={"format": "pt"})


BUILDERS = {
    "parsbert": parsbert,
    "albert-fa": albert_fa,
    "deit-small": deit_small,
    "deit-small-timm": deit_small_timm,
    "e5-small": e5_small,
}
