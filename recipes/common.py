"""The fields that every job's recipe has: the machine it computes on, and the run around the training."""

from dataclasses import dataclass

from minitransformer.training.recipe import option


@dataclass(frozen=True)
class Machine:
    device: str = option("cpu", "where to run", choices=("cpu", "cuda", "mps"))
    precision: str = option("float32", "mixed: matrix products in 16 bits", choices=("float32", "mixed"))
    tf32: bool = option(False, "on a GPU, float32 products may round their factors to 10 bits")
    compile: bool = option(False, "compile the layers: a GPU saves time with it once it has run a minute")
    deterministic: bool = option(False, "on a GPU, the same bits in every run, from slower operations")


@dataclass(frozen=True)
class Run:
    seed: int = option(0, "of every random choice", at_least=0, at_most=2**32 - 1)
    print_every: int = option(100, "steps between printed lines", at_least=1, at_most=10**9)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: none", at_least=0)
    validate_every: int = option(0, "steps between validations; the best is what is written; 0: none", at_least=0)
    out: str = option("", "run folder; default runs/RECIPE", passing=True)
    resume: bool = option(False, "go on from the newest checkpoint in --out", passing=True)
    may_change: str = option("", "with --resume: fields of the recipe that may differ, with commas", passing=True)
    quiet: bool = option(False, "no progress: errors and the scores at the end alone", passing=True)
