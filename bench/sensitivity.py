"""Which matrix minds being rounded? Each one alone in 4 bits, and how far the answers' logits move.

python -m bench.sensitivity --model DIR --data FILE

The change is the root mean square over the logits of all tokens of the first --count questions, start and end. The
last column divides its square by the megabytes that 8 bits would cost more: the matrices with most of it are the first
to get 8 bits (`python -m weights.quantise --eight`).
"""

import torch

from bench.common import machine, table
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser, whole_number
from minitransformer.system.progress import progress
from qa import squad
from qa.features import Batch, batches_by_tokens, collate, featurise
from weights import load_pretrained, load_tokenizer, maps
from weights.quantise import GROUP, SMALLEST
from weights.quantised import dequantise, quantise


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m bench.sensitivity", description=__doc__)
    count = whole_number(at_least=1)
    parser.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder, in float")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--count", type=count, default=32, metavar="N", help="the first N questions (32)")
    parser.add_argument("--group", type=count, default=GROUP, metavar="N", help=f"weights of a scale ({GROUP})")
    args = parser.parse_args()

    model = load_pretrained(args.model, "question-answering", fresh_head=False)
    features = featurise(squad.read(args.data)[: args.count], load_tokenizer(args.model), model.config.positions, 128)
    chosen = batches_by_tokens(features, 8192)
    batches = [collate([features[index] for index in part], model.config.pad_id) for part in chosen]
    names = maps.expand(maps.find(model)[3].names, model.config)  # ours -> the file's
    exact = logits(model, batches)
    rows = []
    matrices = [(name, p) for name, p in model.named_parameters() if p.dim() == 2 and p.numel() >= SMALLEST]
    for name, parameter in progress(matrices, desc="rounding", unit="matrix"):
        before = parameter.data
        parameter.data = dequantise(quantise(before, 4, args.group), 4)
        change = (logits(model, batches) - exact).square().mean().sqrt().item()
        parameter.data = before
        cost = before.numel() * (0.5 - 2 / args.group) / 1e6
        value = change**2 / cost
        rows.append((value, [names[name], f"{before.numel():,}", f"{change:.4f}", f"{value:.4f}"]))
    rows.sort(key=lambda row: -row[0])
    print(table(("matrix", "weights", "change of the logits", "its square per MB"), *(row for _, row in rows)))
    print(f"\n{args.count} questions of {args.data}, groups of {args.group}; "
          f"the logits' deviation is {exact.std():.2f}; {machine()}")  # fmt: skip


@torch.inference_mode()
def logits(model: torch.nn.Module, batches: list[Batch]) -> torch.Tensor:
    """Start and end logits of all real tokens, one after the other."""
    parts = []
    for batch in batches:
        for part in model(batch.input_ids, batch.token_type_ids, batch.attention_mask):
            parts.append(part[batch.attention_mask])
    return torch.cat(parts)


if __name__ == "__main__":
    main()
