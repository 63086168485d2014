"""How good answers are: one class out of K for each image."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def classification(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy in %, the mean loss, the accuracy of each class that occurs, and how often which is taken for which.

    logits: (N, K); labels: (N,). The row of the confusion matrix is the true class, the column the answer.
    """
    count = len(classes)
    confusion = torch.bincount(labels * count + logits.argmax(-1), minlength=count**2).view(count, count)
    right, total = confusion.diag().tolist(), confusion.sum(1).tolist()
    return {
        "accuracy": 100 * sum(right) / len(labels),
        "loss": F.cross_entropy(logits, labels).item(),
        "total": len(labels),
        "per_class": {name: 100 * right[k] / total[k] for k, name in enumerate(classes) if total[k]},
        "confusion": confusion.tolist(),
    }
