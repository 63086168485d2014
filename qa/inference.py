"""A model over features: the best spans of each, and the loss."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from minitransformer.bert import BertForQuestionAnswering
from minitransformer.system.errors import RunError
from minitransformer.system.progress import progress
from minitransformer.training.device import move
from minitransformer.training.parallel import ALONE, World
from qa.features import Feature, batches_by_tokens, collate
from qa.spans import Spans, best_spans, in_feature_order


class Inference(NamedTuple):
    """A model's predictions for features."""

    spans: Spans  # a row per feature
    loss: float  # mean over the features


def span_loss(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the start and of the end, averaged (BERT section 4.2). Logits (B, T), targets (B,)."""
    start_loss = F.cross_entropy(start_logits, start, reduction=reduction)
    return (start_loss + F.cross_entropy(end_logits, end, reduction=reduction)) / 2


@torch.inference_mode()
def predict_spans(
    model: BertForQuestionAnswering,
    features: Sequence[Feature],
    batch_tokens: int,
    max_answer_tokens: int,
    n_best: int = 1,
    world: World = ALONE,
) -> Inference:
    """The n best spans of every feature and the mean loss, in batches of like length and up to `batch_tokens`.

    Each process of `world` computes its share of the batches; all processes get all spans. Raises RunError where a
    logit is not finite: such a model has no answers.
    """
    model.eval()
    device = next(model.parameters()).device
    batches = world.share(batches_by_tokens(features, batch_tokens))
    spans, loss = [], 0.0
    count = sum(map(len, batches))
    with progress(total=count, desc="predicting", unit="feature", leave=False, shown=world.first) as bar:
        for indices in batches:
            batch = move(collate([features[index] for index in indices], model.config.pad_id), device)
            start, end = model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
            if not (start.isfinite().all() and end.isfinite().all()):
                raise RunError("the model answers with NaN: its weights are damaged, or its training has diverged")
            loss += span_loss(start, end, batch.start, batch.end, reduction="sum").item()
            best = best_spans(start, end, batch.context_mask, max_answer_tokens, n_best)
            spans.append(Spans(*(field.cpu() for field in best)))
            bar.update(len(indices))
    shares = world.gather((spans, batches, loss))
    spans = [best for share, _, _ in shares for best in share]
    batches = [indices for _, share, _ in shares for indices in share]
    return Inference(in_feature_order(spans, batches), sum(loss for *_, loss in shares) / len(features))
