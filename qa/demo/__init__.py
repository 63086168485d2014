"""Invented Persian encyclopedia paragraphs and questions about them: the data set that ships, as a program.

Facts are drawn anew for every paragraph, so none can be known by heart: only reading the paragraph answers the
question. A name belongs to one part for good: whatever validation asks about, training has never named.

world.py has the words, paragraphs.py makes paragraphs and questions of them, pretraining.py text to pre-train on.
"""

import random

from minitransformer.system.errors import DataError
from qa.demo.paragraphs import ask, paragraph, unanswered
from qa.demo.pretraining import pretraining_text
from qa.demo.world import PARTS
from qa.squad import Answer, Example

__all__ = ["PARTS", "examples", "pretraining_text"]

QUESTIONS = {"train": 6400, "valid": 300}


def examples(part: str, count: int | None = None, seed: int = 0) -> list[Example]:
    """`count` questions, each on a paragraph of its own, one in four of them without an answer."""
    if part not in PARTS:
        raise DataError(f"no part {part!r} of the demo data, only {' and '.join(PARTS)}")
    count = QUESTIONS[part] if count is None else count
    rng = random.Random(f"{part} {seed}")
    result, silent = [], 0
    for index in range(count):
        if index % 4 == 0:
            silent = rng.randrange(4)  # which of these four has no answer
        passage = paragraph(part, rng, facts=rng.randint(3, 5))
        if index % 4 == silent:
            relation, name = unanswered(passage, part, rng)
            answers = ()
        else:
            fact = rng.choice(passage.facts)
            relation, name = fact.relation, fact.entity
            answers = (Answer(fact.value, fact.start),)
        result.append(
            Example(
                id=f"{part}-{seed}-{index}",
                title=passage.entities[0][0],
                question=ask(relation, name, rng),
                context=passage.text,
                answers=answers,
            )
        )
    return result
