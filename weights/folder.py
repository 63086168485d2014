"""The two kinds of files that lie in a checkpoint's folder: JSON objects and safetensors."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from minitransformer.errors import WeightsError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint folder."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object; fetch the file again")
    return value


def safetensors_bytes(tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a safetensors file; `format` is what transformers asks for before it reads one."""
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})
