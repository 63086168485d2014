"""Chapter 5's figure: what the small BERT that ships guesses behind [MASK]."""

import svg
import torch

from weights import load_pretrained, load_tokenizer

TEXT = "درازای این رود ۴۲۰ [MASK] است ."


def figure() -> str:
    model, tokenizer = load_pretrained("demo-bert-fa", "masked-lm"), load_tokenizer("demo-bert-fa")
    ids = tokenizer.encode(TEXT).ids
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0, ids.index(tokenizer.token_to_id("[MASK]"))]
    best = logits.softmax(-1).topk(5)
    rows = [(tokenizer.id_to_token(int(n)), float(p), f"{p:.1%}") for p, n in zip(*best, strict=True)]
    title = svg.text(300, 16, "The five likeliest words for [MASK], and how likely")
    return svg.picture(600, 30 + svg.ROW * len(rows), title, *svg.bars(rows, left=110, width=400, top=28))


if __name__ == "__main__":
    svg.save(__file__, figure())
