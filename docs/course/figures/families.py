"""Chapter 12's figure: the parameters of the public base models, without a head."""

import svg
import torch

from minitransformer.albert import Albert, AlbertConfig
from minitransformer.bert import Bert, BertConfig
from minitransformer.distilbert import DistilBert, DistilBertConfig
from minitransformer.electra import Electra, ElectraConfig
from minitransformer.roberta import Roberta, RobertaConfig

ALBERT_BASE = AlbertConfig(width=768, heads=12, ffn_width=3072)
XLM_R = RobertaConfig(vocabulary=250002, position_rows=514, segments=1)


def figure() -> str:
    with torch.device("meta"):
        models = {
            "XLM-RoBERTa base": Roberta(XLM_R),
            "RoBERTa base": Roberta(RobertaConfig(position_rows=514, segments=1)),
            "BERT base": Bert(BertConfig()),
            "DistilBERT": DistilBert(DistilBertConfig()),
            "ELECTRA small": Electra(ElectraConfig()),
            "ALBERT base": Albert(ALBERT_BASE),
        }
    rows = []
    for name, model in models.items():
        size = sum(parameter.numel() for parameter in model.parameters())
        table = model.embeddings.token.weight.numel()
        rows.append((name, size / 1e6, f"{size / 1e6:.0f} million, {table / size:.0%} in the token table"))
    title = svg.text(400, 16, "Parameters of the encoder")
    return svg.picture(800, 30 + svg.ROW * len(rows), title, *svg.bars(rows, left=150, width=380, top=28))


if __name__ == "__main__":
    svg.save(__file__, figure())
