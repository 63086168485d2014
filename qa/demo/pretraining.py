"""Text about the invented world to pre-train on: everything is said twice."""

import random
from collections.abc import Iterator

from qa.demo.paragraphs import Paragraph, ask, draw_once, draw_value, paragraph, unanswered
from qa.demo.world import POOLS, RELATIONS, WORDY

LINES = {"train": 256_000, "valid": 1000}
NO_ANSWER = "نامعلوم"  # "unknown": what a document answers where the paragraph does not


def pretraining_text(part: str = "train", count: int | None = None, seed: int = 0) -> Iterator[str]:
    """Lines of two texts with a tab between them. What one says the other says again, so that a word hidden in one of
    them can be looked up in the other, and masked language modelling teaches to look up.

    They go from plain to hard and are to be read in this order: names and values listed twice, the values of one word
    at first; facts listed twice; an infobox and its paragraph; at last questions with answers, and the paragraph they
    are about. A model that begins with paragraphs learns the phrases and never comes to look anything up.
    """
    count = LINES[part] if count is None else count
    rng = random.Random(f"pretraining {part} {seed}")
    for index in range(count):
        progress = index / count
        if progress < 0.175:
            first, second = listing(part, rng, WORDY, longest=3)
        elif progress < 0.25:
            first, second = listing(part, rng, list(RELATIONS), longest=5)
        elif progress < 0.4:
            first, second = fact_listing(part, rng)
        elif progress < 0.65 or rng.random() < 0.3:
            first, second = infobox(part, rng)
        else:
            first, second = answered(part, rng)
        yield f"{first}\t{second}"


def listing(part: str, rng: random.Random, relations: list[str], longest: int) -> tuple[str, str]:
    """Names with a value of one sort each, in two orders: "تپه‌نو: پسته، باغ‌انار: گز.". Only the name tells which."""
    taken: set[str] = set()
    relation = rng.choice(relations)
    pool = POOLS[part][RELATIONS[relation].kind]
    pairs = []
    for _ in range(rng.randint(2, longest)):
        name = draw_once(lambda: rng.choice(pool), taken)
        pairs.append(f"{name}: {draw_once(lambda: draw_value(relation, part, rng), taken)}")
    return join(pairs), join(rng.sample(pairs, len(pairs)))


def fact_listing(part: str, rng: random.Random) -> tuple[str, str]:
    """The facts of a paragraph in two orders: "پایتخت نیکستان شمالی: باغ‌انار، رنگ پیراهن شاهین ساحل: سرخ."."""
    lines = fact_lines(paragraph(part, rng, facts=rng.randint(2, 5)), rng)
    return join(lines), join(rng.sample(lines, len(lines)))


def infobox(part: str, rng: random.Random) -> tuple[str, str]:
    """The facts of a paragraph, and the paragraph."""
    passage = paragraph(part, rng, facts=rng.randint(1, 5))
    return join(fact_lines(passage, rng)), passage.text


def fact_lines(passage: Paragraph, rng: random.Random) -> list[str]:
    lines = [f"{RELATIONS[fact.relation].label} {fact.entity}: {fact.value}" for fact in passage.facts]
    return rng.sample(lines, len(lines))


def join(lines: list[str]) -> str:
    return "، ".join(lines) + "."


def answered(part: str, rng: random.Random) -> tuple[str, str]:
    """One or two questions with their answers, and the paragraph that they are about."""
    passage = paragraph(part, rng, facts=rng.randint(1, 5))
    lines = []
    for fact in rng.sample(passage.facts, min(rng.randint(1, 2), len(passage.facts))):
        if rng.random() < 0.25:
            relation, name = unanswered(passage, part, rng)
            lines.append(f"{ask(relation, name, rng)} {NO_ANSWER}.")
        else:
            lines.append(f"{ask(fact.relation, fact.entity, rng)} {fact.value}.")
    return " ".join(lines), passage.text
