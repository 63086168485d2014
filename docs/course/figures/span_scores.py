"""Chapter 6's figure: the score of every span of a passage, by the answerer that ships."""

import svg
import torch

from weights import load_pretrained, load_tokenizer

QUESTION, PASSAGE = (
    "چه کسی تخت جمشید را به آتش کشید؟",
    "داریوش بزرگ تخت جمشید را ساخت و اسکندر مقدونی آن را به آتش کشید.",
)
CELL, LEFT, TOP = 30, 80, 82


def figure() -> str:
    model, tokenizer = load_pretrained("answerer-fa", "question-answering"), load_tokenizer("answerer-fa")
    pair = tokenizer.encode(QUESTION, PASSAGE)
    with torch.no_grad():
        start, end = model(torch.tensor([pair.ids]), torch.tensor([pair.type_ids]))
    places = [place for place, text in enumerate(pair.sequence_ids) if text == 1]
    names = [pair.tokens[place].replace("\u2581", "") for place in places]
    score = start[0, places][:, None] + end[0, places][None, :]  # (n, n): start i, end j
    low, high = score.min(), score.max()
    shade = ((score - low) / (high - low)).square()  # squared, so that the best stands out
    shapes = [svg.text(LEFT + CELL * len(names) / 2, 14, "last token of the span")]
    shapes += svg.grid(names, shade.triu().tolist(), LEFT, TOP, CELL, svg.GREEN, lines=3)  # no end before its start
    bottom = TOP + CELL * len(names)
    shapes.append(svg.text(LEFT, bottom + 18, "rows: the first token; dark: a high score", anchor="start"))
    return svg.picture(LEFT + CELL * len(names) + 16, bottom + 34, *shapes)


if __name__ == "__main__":
    svg.save(__file__, figure())
