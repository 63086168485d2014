"""Chapter 7's figure: where the parameters of BERT-base and of an ALBERT of its size are."""

import svg
import torch
from torch import nn

from minitransformer.albert import Albert, AlbertConfig
from minitransformer.bert import Bert, BertConfig

SIZES = {"width": 768, "heads": 12, "ffn_width": 3072}


def figure() -> str:
    with torch.device("meta"):
        bert, albert = Bert(BertConfig(**SIZES)), Albert(AlbertConfig(**SIZES))
    parts = [
        ("BERT: tables of embeddings", bert.embeddings),
        ("BERT: 12 layers", bert.layers),
        ("ALBERT: tables of embeddings", albert.embeddings),
        ("ALBERT: E to C", albert.widen),
        ("ALBERT: one layer, 12 times", albert.groups),
    ]
    rows = [(name, count(part) / 1e6, f"{count(part) / 1e6:.1f} million") for name, part in parts]
    title = svg.text(380, 16, "Parameters, by part")
    return svg.picture(760, 30 + svg.ROW * len(rows), title, *svg.bars(rows, left=220, width=420, top=28))


def count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


if __name__ == "__main__":
    svg.save(__file__, figure())
