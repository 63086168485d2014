"""pytorch_model.bin, which is a pickle: its tensors alone are read, and nothing that it asks to run is run."""

import warnings
from pathlib import Path

import torch
from torch import Tensor


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of the file. One that has two names (a head tied to the embeddings) comes under the first alone.

    Raises ValueError where there is anything else in it than a table of names and tensors.
    """
    state: dict[str, Tensor] = {}
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, of what damaged bytes may mean
            state = torch.load(path, map_location="cpu", weights_only=True)
        is_table = all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items())
    except Exception:  # damaged bytes make torch raise whatever they lead to; of code it would say how to run it
        is_table = False
    if not is_table:
        raise ValueError("not a table of tensors alone: damaged, or made to run code, which was not run")
    tensors: dict[str, Tensor] = {}
    seen = set()
    for name, tensor in state.items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if memory not in seen:
            tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
        seen.add(memory)
    return tensors
