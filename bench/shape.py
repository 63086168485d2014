"""A checkpoint with the shape of a public model and random weights, for timing where the real weights are not at hand.

python -m bench.shape albert-base --tokenizer DIR --out DIR

The other benchmarks take the folder as --weights. Its tokenizer is another checkpoint's, of a smaller vocabulary, so
that texts become tokens as they would; ids above that vocabulary are never used, but their rows are there.
"""

import torch

from minitransformer.albert import AlbertConfig, AlbertForQuestionAnswering
from minitransformer.bert import BertConfig, BertForQuestionAnswering, initialise
from minitransformer.system.errors import WeightsError, command_line
from minitransformer.system.flags import FlagParser
from weights import load_tokenizer, save_pretrained

SHAPES = {  # the report's two models, and the paper's larger one
    "bert-large": (BertForQuestionAnswering, BertConfig(100_000, width=1024, layers=24, heads=16, ffn_width=4096)),
    "bert-base": (BertForQuestionAnswering, BertConfig(vocabulary=100_000)),
    "albert-base": (AlbertForQuestionAnswering, AlbertConfig(vocabulary=80_000, width=768, heads=12, ffn_width=3072)),
}


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m bench.shape", description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="checkpoint folder whose tokenizer to take")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.tokenizer)
    kind, config = SHAPES[args.shape]
    if tokenizer.get_vocab_size() > config.vocabulary:
        raise WeightsError(f"{args.tokenizer}: its vocabulary is larger than the {config.vocabulary:,} of {args.shape}")
    torch.manual_seed(0)
    model = kind(config)
    initialise(model, config.initializer_range)
    save_pretrained(model, args.out, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.out}: {args.shape}, {parameters:,} parameters, random")


if __name__ == "__main__":
    main()
