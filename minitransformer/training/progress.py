"""Progress."""

from tqdm import tqdm

from minitransformer.training.parallel import World


def progress(what: str, done: int, steps: int, world: World) -> tqdm:
    """A progress bar of steps; only the first process shows one."""
    return tqdm(total=steps, initial=done, unit="step", desc=what, disable=not world.first)
