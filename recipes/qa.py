"""What train_qa.py can be told."""

from dataclasses import dataclass

from minitransformer.training.recipe import option
from recipes import common


@dataclass(frozen=True)
class Task:
    weights: str = option("demo-bert-fa", "checkpoint: a folder in Hugging Face layout, or a name")
    train: str = option("demo", "training questions: SQuAD JSON, JSON Lines, CSV, ...; demo; pquad, which is fetched")
    valid: str = option("demo", "validation questions, likewise")
    mend_answers: bool = option(False, "repair answers whose answer_start is wrong, drop those that cannot be")
    limit_train: int = option(0, "only the first N training questions; 0: all", at_least=0)
    limit_valid: int = option(0, "only the first N validation questions; 0: all", at_least=0)
    # features
    max_length: int = option(512, "longest input in tokens", at_least=1)
    stride: int = option(-1, "tokens that windows share; -1: no windows, long contexts are cut", at_least=-1)
    # training
    epochs: int = option(1, "passes over the training questions", at_least=0)
    max_steps: int = option(0, "stop after N steps; 0: after the epochs", at_least=0)
    batch_size: int = option(16, "features per step", at_least=1)
    micro_batch: int = option(0, "features per forward pass; gradients accumulate; 0: the whole batch", at_least=0)
    learning_rate: float = option(5e-5, "of AdamW, at its highest", at_least=0.0)
    weight_decay: float = option(0.1, "of AdamW", at_least=0.0)
    decay_all: bool = option(True, "decay biases and norms too")
    schedule: str = option(
        "step", "step: times gamma per epoch; linear: warm-up, then down to 0", choices=("step", "linear")
    )
    gamma: float = option(0.1, "factor of the step schedule", at_least=0.0)
    warmup: float = option(0.0, "fraction of the steps in which the linear schedule rises", at_least=0.0, at_most=1.0)
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    graphs: bool = option(True, "on a GPU in 16 bits: record the kernels of a step, then launch them all at once")
    head_dropout: float = option(0.2, "before the span classifier", at_least=0.0, at_most=1.0)
    # distillation
    teacher: str = option("", "trained checkpoints to distil from, separated by commas; empty: none")
    teacher_weight: float = option(
        0.5, "weight of the teacher's loss; the labels' has the rest", at_least=0.0, at_most=1.0
    )
    temperature: float = option(1.0, "by which the teacher's and the student's logits are divided", at_least=0.01)
    # evaluation
    max_answer_tokens: int = option(512, "longest answer", at_least=1)
    n_best: int = option(20, "candidates kept in nbest.json", at_least=1, at_most=1000)
    null_threshold: float = option(0.0, "no answer where its score exceeds the best span's by more")
    eval_tokens: int = option(8192, "padded tokens in an evaluation batch", at_least=1)


@dataclass(frozen=True)
class Recipe(common.Run, common.Machine, Task):
    """All fields, of the last base first."""
