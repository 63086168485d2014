"""Load checkpoint folders: config.json and safetensors (or pytorch_model.bin), exactly or not at all.

A name that is missing, extra or of another shape ends the load with its name, unless the task's table in maps.py
says that the head may be fresh or that the name is dropped on purpose. There is no partial load.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minitransformer.bert import BertForMaskedLM, BertForQuestionAnswering
from minitransformer.dinov2 import ImageClassifier
from minitransformer.system.errors import WeightsError
from minitransformer.system.progress import note
from weights import maps, timm
from weights.find import find_folder
from weights.folder import HASH, SCHEME, read_json, tensors_hash
from weights.pickled import read_pickle
from weights.quantised import unpack

BARE_PARTS = (
    "embeddings.",
    "embeddings_project.",  # ELECTRA
    "encoder.",
    "transformer.",  # DistilBERT
    "pooler.",
    "layernorm.",
)  # what a file of a bare encoder has in place of the prefix
WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel's, torch.compile's, Lightning's
LARGEST_HEADER = 10 * 2**20  # bytes; a name and a shape take a hundred, and no model has 100,000 tensors
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@overload
def load_pretrained(
    folder: str | Path, task: Literal["question-answering"], fresh_head: bool = True
) -> BertForQuestionAnswering: ...


@overload
def load_pretrained(folder: str | Path, task: Literal["masked-lm"], fresh_head: bool = True) -> BertForMaskedLM: ...


@overload
def load_pretrained(
    folder: str | Path, task: Literal["image-classification"], fresh_head: bool = True, classes: int | None = None
) -> ImageClassifier: ...


@overload
def load_pretrained(
    folder: str | Path, task: str, fresh_head: bool = True, classes: int | None = None
) -> nn.Module: ...


def load_pretrained(folder: str | Path, task: str, fresh_head: bool = True, classes: int | None = None) -> nn.Module:
    """A model for `task` with the weights of an HF folder, in float32 and evaluation mode.

    folder: a path, the name of a checkpoint that ships (demo-bert-fa), or of a public one, or owner/name[@revision] on
    the hub; what is public is fetched (hub.py).
    task: "encoder", "question-answering", "masked-lm" or "image-classification".
    fresh_head: whether a head that the task declares fresh may be missing; it is then drawn from torch's random
    generator, to be trained. Where answers are wanted at once, pass False: a random head answers too, but wrongly.
    classes: for image classification, throw the file's classifiers away for a fresh one of so many classes.

    Raises WeightsError, in one line, on anything missing, extra, misshapen or unreadable.
    """
    folder = find_folder(folder)
    architecture, config = read_config(folder)
    if task not in architecture.tasks:
        raise WeightsError(f"{folder}: this model has no task {task!r}; it has {', '.join(architecture.tasks)}")
    table = architecture.tasks[task]
    if classes is not None:
        config = dataclasses.replace(config, classes=classes)
    elif task == "image-classification":
        named = default_task(folder, architecture, task)
        table = architecture.tasks[named if named.startswith(task) else task]  # with a teacher, or not
    with torch.device("meta"), Unfilled():  # names and shapes only; the numbers come from the file
        model = table.model(config)
    names = maps.expand(table.names, config)  # ours -> HF's
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    tensors = read_tensors(folder, architecture.prefix)
    if classes is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(maps.CLASSIFIERS)}
    missing = {ours for ours, hf in names.items() if hf not in tensors}
    if missing and (missing != table.fresh_head or not fresh_head):
        first = min(names[ours] for ours in missing)
        remedy = "train it first" if missing == table.fresh_head else "the file is not whole, or of another model"
        raise WeightsError(f"{folder}: tensors are missing, {len(missing)} in all, first {first}: {remedy}")
    for hf in sorted(set(tensors) - set(names.values())):
        if hf not in table.tied and not hf.startswith(table.dropped):
            raise WeightsError(f"{folder}: unexpected tensor {hf}: the file is of another model than config.json says")
    for copy, original in table.tied.items():
        if copy in tensors and not torch.equal(tensors[copy], tensors[original]):
            raise WeightsError(f"{folder}: {copy} differs from {original}, but this model ties the two")

    state = {}
    for ours, hf in names.items():
        if ours in missing:
            state[ours] = _fresh(ours, shapes[ours], config.initializer_range)
        elif tensors[hf].dtype != torch.float32:
            raise WeightsError(
                f"{folder}: {hf} is {tensors[hf].dtype}, no float: fetch a checkpoint that is not quantised"
            )
        elif tensors[hf].shape == shapes[ours]:
            state[ours] = tensors[hf]
        else:
            raise WeightsError(
                f"{folder}: {hf} has shape {tuple(tensors[hf].shape)}, config.json asks for {tuple(shapes[ours])}"
            )
    model.load_state_dict(state, assign=True)
    return model.eval()


class Unfilled(TorchFunctionMode):
    """Skips the initialisation of embeddings: on the meta device torch loads its compiler for it, 1 s and 60 MB."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **kwargs)


def default_task(folder: Path, architecture: maps.Architecture, otherwise: str = "encoder") -> str:
    """The task that config.json's `architectures` names."""
    named = timm.as_hf(read_json(folder / "config.json")).get("architectures")
    named = named if isinstance(named, list) else []
    return next((name for name, task in architecture.tasks.items() if task.architecture in named), otherwise)


def read_labels(folder: str | Path) -> list[str]:
    """The names of a classifier's classes, from config.json's id2label. WeightsError where they are not numbered."""
    path = find_folder(folder) / "config.json"
    settings = read_json(path)
    if "model_type" not in settings and timm.as_hf(settings) is not settings:
        raise WeightsError(f"{path}: timm's folders do not name their classes; train a classifier on it first")
    labels = settings.get("id2label")
    if not isinstance(labels, dict) or set(labels) != {str(number) for number in range(len(labels))}:
        raise WeightsError(f"{path}: no id2label that names the classes 0, 1, ...; fetch the file again")
    return [str(labels[str(number)]) for number in range(len(labels))]


def read_config(folder: Path) -> tuple[maps.Architecture, Any]:
    """The architecture that config.json names, and its sizes and constants."""
    path = folder / "config.json"
    settings = timm.as_hf(read_json(path))
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in maps.ARCHITECTURES:
        known = ", ".join(maps.ARCHITECTURES)
        raise WeightsError(f"{path}: model_type is {model_type!r}; this project has {known}")
    architecture = maps.ARCHITECTURES[model_type]
    if settings.get("id2label") and isinstance(settings["id2label"], dict):  # HF counts the names of the classes
        settings["num_labels"] = len(settings["id2label"])
    return architecture, maps.config_from_hf(architecture, settings, where=str(path))


def read_tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    """Every float tensor of the folder, float32, under its present-day HF name with the encoder's prefix."""
    found: dict[str, Tensor] = {}
    for path in _tensor_files(folder):
        tensors = _read_pickle(path) if path.suffix == ".bin" else _read_file(path)
        twice = found.keys() & tensors.keys()
        if twice:
            raise WeightsError(f"{path}: {min(twice)} stands in another shard too; fetch the checkpoint again")
        found |= tensors
    tensors = {}
    for name, tensor in timm.tensors_as_hf(_unwrapped(found, folder), prefix).items():
        name = maps.modern_name(name)
        if name.startswith(BARE_PARTS):
            name = prefix + name
        if name in tensors:
            raise WeightsError(f"{folder}: {name} stands twice in this checkpoint, under an old and a new name")
        tensors[name] = tensor
    return tensors


def _unwrapped(tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Without the prefixes of WRAPPERS, where all names have them."""
    while wrapper := next((w for w in WRAPPERS if tensors and all(name.startswith(w) for name in tensors)), ""):
        note(f"{folder}: every name begins with {wrapper!r}, which a training tool has left; read without it")
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def _tensor_files(folder: Path) -> list[Path]:
    """model.safetensors, or else pytorch_model.bin; or the shards that the .index.json of one of them lists."""
    for whole in (folder / "model.safetensors", folder / "pytorch_model.bin"):
        if whole.is_file():
            return [whole]
        index = whole.with_name(f"{whole.name}.index.json")
        if index.is_file():
            return _shards(index, whole.suffix)
    raise WeightsError(f"{folder}: no model.safetensors: not a whole checkpoint folder")


def _shards(index: Path, suffix: str) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise WeightsError(f"{index}: no weight_map from names to shards; fetch the file again")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        path = index.with_name(shard) if Path(shard).name == shard else index
        if not path.is_file() or path.suffix != suffix:
            raise WeightsError(f"{index}: shard {shard} is not in the folder; fetch it")
    return [index.with_name(shard) for shard in shards]


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of one pytorch_model.bin, widened to float32."""
    try:
        tensors = read_pickle(path)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; fetch it again, or ask its maker for safetensors") from error
    note(f"{path}: a pickle; its tensors alone were read, and no code of it was run")
    return {name: tensor.float() if tensor.dtype in FLOATS else tensor for name, tensor in tensors.items()}


def _read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, widened to float32. Whole numbers (position ids) stay as they are."""
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > LARGEST_HEADER:
            raise ValueError(f"a header of {header:,} bytes")
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if HASH in notes and notes[HASH] != tensors_hash(tensors):
            raise ValueError("its tensors are not those that were written")
        if HASH not in notes and any(_nearly(name, HASH) for name in notes):
            raise ValueError("the name of its hash is damaged")
        mapped = set(tensors)  # these still lie in the file
        if SCHEME in notes:
            tensors = unpack(tensors, notes[SCHEME])
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error
    # The copy matters: a tensor that still lies in the file changes, or crashes the process, when the file does.
    return {
        name: tensor.to(torch.float32, copy=name in mapped) if tensor.dtype in FLOATS else tensor.clone()
        for name, tensor in tensors.items()
    }


def _nearly(name: str, other: str) -> bool:
    """Whether some flipped bits could have made one out of the other: as long, and at most half of it different."""
    return len(name) == len(other) and 2 * sum(a != b for a, b in zip(name, other, strict=True)) <= len(name)


def _fresh(name: str, shape: torch.Size, std: float) -> Tensor:
    """A fresh parameter as BERT starts it: weights normal, biases zero."""
    return torch.empty(shape).normal_(std=std) if name.endswith("weight") else torch.zeros(shape)
