"""Predict: a model over features, and the command that answers a file of questions with it.

python -m qa.predict --model runs/demo-qa/model --data valid.json --out predictions.json
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitransformer.system import files
from minitransformer.system.errors import RunError, command_line
from minitransformer.system.flags import FlagParser, finite_number, whole_number
from minitransformer.system.progress import progress
from minitransformer.training.device import choose_device, move
from minitransformer.training.parallel import ALONE, World
from qa import squad
from qa.features import Feature, batches_by_tokens, collate, featurise
from qa.spans import Spans, best_spans, in_feature_order, official_files, predictions
from weights import load_pretrained, load_tokenizer

N_BEST = 20  # spans kept of each window: should the best be white space alone, the next one answers


class Read(NamedTuple):
    """What a model makes of features."""

    spans: Spans  # a row per feature
    loss: float  # mean over the features


def span_loss(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the start and of the end, averaged (BERT section 4.2). Logits (B, T), targets (B,)."""
    start_loss = F.cross_entropy(start_logits, start, reduction=reduction)
    return (start_loss + F.cross_entropy(end_logits, end, reduction=reduction)) / 2


@torch.inference_mode()
def read(
    model: nn.Module,
    features: Sequence[Feature],
    batch_tokens: int,
    max_answer_tokens: int,
    n_best: int = 1,
    world: World = ALONE,
) -> Read:
    """The n best spans of every feature and the mean loss, in batches of like length and up to `batch_tokens`.

    Each process of `world` reads its share of the batches, and all get all spans. Raises RunError where a logit is not
    finite: such a model has no answers.
    """
    model.eval()
    device = next(model.parameters()).device
    batches = world.share(batches_by_tokens(features, batch_tokens))
    spans, loss = [], 0.0
    count = sum(map(len, batches))
    with progress(total=count, desc="reading", unit="feature", leave=False, shown=world.first) as bar:
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
    return Read(in_feature_order(spans, batches), sum(loss for *_, loss in shares) / len(features))


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m qa.predict", description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder, as runs/NAME/model")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--out", required=True, metavar="FILE", help="where {id: answer} goes, as JSON")
    count = whole_number(at_least=1)
    parser.add_argument("--stride", type=whole_number(at_least=0), default=128, metavar="N",
                        help="tokens that windows of long contexts share (128)")  # fmt: skip
    parser.add_argument("--max-answer-tokens", type=count, default=64, metavar="N", help="longest answer (64)")
    parser.add_argument("--null-threshold", type=finite_number, default=0.0, metavar="X",
                        help="lower: more questions get no answer (0)")  # fmt: skip
    parser.add_argument("--batch-tokens", type=count, default=8192, metavar="N", help="padded tokens in a batch (8192)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()

    files.check_writable(args.out, args.data)
    examples = squad.read(args.data)
    tokenizer = load_tokenizer(args.model)
    model = load_pretrained(args.model, "question-answering", fresh_head=False).to(choose_device(args.device))
    features = featurise(examples, tokenizer, model.config.positions, args.stride)
    spans, _ = read(model, features, args.batch_tokens, args.max_answer_tokens, N_BEST)
    answers = official_files(predictions(examples, features, spans, args.null_threshold)).predictions
    files.write_json(Path(args.out), answers)
    print(f"{len(answers)} answers, {sum(not text for text in answers.values())} of them empty: {args.out}")


if __name__ == "__main__":
    main()
