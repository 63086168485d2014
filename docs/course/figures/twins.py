"""Chapter 3's figure: one head of the answerer that ships, which ties words of the question to those of the passage."""

import svg
import torch

from minitransformer.attention_weights import attention_weights
from weights import load_pretrained, load_tokenizer

QUESTION, PASSAGE = "پایتخت ایران کجاست؟", "تهران پایتخت ایران است."
LAYER, HEAD = 6, 6  # counted from 1
CELL, LEFT, TOP = 34, 96, 70


def figure() -> str:
    model, tokenizer = load_pretrained("answerer-fa", "question-answering"), load_tokenizer("answerer-fa")
    pair = tokenizer.encode(QUESTION, PASSAGE)
    maps = attention_weights(model, torch.tensor([pair.ids]), torch.tensor([pair.type_ids]))
    weight = maps[LAYER - 1, 0, HEAD - 1].tolist()
    names = [token.replace("\u2581", "") or token for token in pair.tokens]
    shapes = [svg.text(LEFT + CELL * len(names) / 2, 14, "looked at: a column for each token")]
    shapes += svg.grid(names, weight, LEFT, TOP, CELL)
    shapes.append(
        svg.text(LEFT, TOP + CELL * len(names) + 18, "who looks: a row for each token; dark: much", anchor="start")
    )
    return svg.picture(LEFT + CELL * len(names) + 16, TOP + CELL * len(names) + 34, *shapes)


if __name__ == "__main__":
    svg.save(__file__, figure())
