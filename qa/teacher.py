"""Distillation: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.

A teacher says of every token how likely an answer begins, or ends, there. Softened by a temperature these shares tell
the student more than the one right token does: which others were nearly right. The teacher does not change, and neither
do the features, so each is read once, before the training.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from minitransformer.bert import BertForQuestionAnswering
from minitransformer.system.errors import RunError
from minitransformer.system.progress import progress
from minitransformer.training.device import move
from minitransformer.training.parallel import ALONE, World
from qa.features import Feature, batches_by_tokens, collate
from weights import load_pretrained, load_tokenizer


class Shares(NamedTuple):
    """What the teacher says, softened: each row sums to 1. Both (B, T)."""

    start: Tensor
    end: Tensor


def load_teachers(names: str, tokenizer: Tokenizer) -> list[BertForQuestionAnswering]:
    """The teachers that `names` lists, with commas between. RunError where one's vocabulary is not the student's."""
    teachers = []
    for name in filter(None, map(str.strip, names.split(","))):
        if load_tokenizer(name).get_vocab() != tokenizer.get_vocab():
            raise RunError(f"--teacher {name}: its vocabulary is not the student's; give one with the same tokenizer")
        teachers.append(load_pretrained(name, "question-answering", fresh_head=False))
    return teachers


@torch.inference_mode()
def ask_teachers(
    teachers: Sequence[BertForQuestionAnswering],
    features: Sequence[Feature],
    temperature: float,
    batch_tokens: int,
    device: torch.device,
    world: World = ALONE,
) -> list[np.ndarray]:
    """For each feature the mean of softmax(logits / temperature) over the teachers, of start and end: (2, T)."""
    shares: list[np.ndarray] = [np.zeros((2, len(feature.input_ids)), np.float32) for feature in features]
    mine = world.share(batches_by_tokens(features, batch_tokens))
    count = len(teachers) * sum(map(len, mine))
    with progress(total=count, desc="asking the teacher", unit="feature", shown=world.first) as bar:
        for teacher in teachers:
            teacher.to(device)
            for indices in mine:
                batch = move(collate([features[index] for index in indices], teacher.config.pad_id), device)
                logits = torch.stack(teacher(batch.input_ids, batch.token_type_ids, batch.attention_mask), dim=1)
                found = (logits.float() / temperature).softmax(-1).cpu().numpy() / len(teachers)  # (B, 2, T)
                for index, row in zip(indices, found, strict=True):
                    shares[index] += row[:, : shares[index].shape[1]]
                bar.update(len(indices))
    for others in world.gather({index: shares[index] for indices in mine for index in indices}):
        for index, row in others.items():
            shares[index] = row
    return shares


def pad(shares: Sequence[np.ndarray], shape: tuple[int, ...]) -> Shares:
    """Side by side, 0 at padding. shape: (B, T) of the batch; its texts after these have no teacher."""
    texts, length = shape
    padded = torch.zeros(texts, 2, length)
    for row, share in zip(padded[: len(shares)], shares, strict=True):
        row[:, : share.shape[1]] = torch.from_numpy(share)
    return Shares(padded[:, 0], padded[:, 1])


def soft_loss(start_logits: Tensor, end_logits: Tensor, shares: Shares, temperature: float) -> Tensor:
    """Cross-entropy with the teacher's shares at the same temperature, start and end averaged; summed over the batch.

    Times temperature^2, since the gradients of softened shares fall with it (end of section 2). Logits (B, T).
    """
    losses = [
        -(share * (logits.float() / temperature).log_softmax(-1)).sum()
        for logits, share in ((start_logits, shares.start), (end_logits, shares.end))
    ]
    return temperature**2 * torch.stack(losses).sum() / 2
