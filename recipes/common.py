"""The fields that every job's recipe has: the machine it computes on, and the run around the training."""

from dataclasses import dataclass

from minitransformer.training.recipe import option


@dataclass(frozen=True)
class Machine:
    device: str = option("cpu", "where to run", choices=("cpu", "cuda", "mps"))
    precision: str = option("float32", "mixed: matrix products in 16 bits", choices=("float32", "mixed"))
    tf32: bool = option(False, "on a GPU, float32 products may round their factors to 10 bits")
    compile: bool = option(False, "torch.compile the layers: pays on a GPU after about a minute")
    deterministic: bool = option(False, "on a GPU, bit-identical runs, from slower operations")


@dataclass(frozen=True)
class Run:
    seed: int = option(0, "random seed", at_least=0, at_most=2**32 - 1)
    print_every: int = option(100, "steps between printed lines", at_least=1, at_most=10**9)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: none", at_least=0)
    validate_every: int = option(0, "steps between validations; the best checkpoint is kept; 0: none", at_least=0)
    out: str = option("", "run folder; default runs/RECIPE", passing=True)
    resume: bool = option(False, "resume from the newest checkpoint in --out", passing=True)
    may_change: str = option(
        "", "with --resume: fields of the recipe that may differ, separated by commas", passing=True
    )
    quiet: bool = option(False, "print only errors and the final scores", passing=True)
