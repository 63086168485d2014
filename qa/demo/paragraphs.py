"""Paragraphs about the invented world, and questions about a paragraph."""

import random
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

from qa.demo.world import DIGITS, KINDS, NAMES, NUMBERS, OF_KIND, POOLS, RELATIONS, WORDS


class Fact(NamedTuple):
    """One (entity, relation, value), and where the value stands in the paragraph."""

    entity: str
    relation: str
    value: str
    start: int


class Paragraph(NamedTuple):
    text: str
    entities: tuple[tuple[str, str], ...]  # (name, kind) in order of appearance; the first is the title
    facts: tuple[Fact, ...]


def paragraph(part: str, rng: random.Random, facts: int) -> Paragraph:
    """A paragraph that states about `facts` facts.

    Most are the same few relations of two or three entities of one kind, so that neither the entity nor the relation
    alone finds an answer.
    """
    kind = rng.choice(list(KINDS))
    namesakes = 1 if facts == 1 else rng.choice((2, 2, 3)) if facts > 2 else 2
    relations = rng.sample(OF_KIND[kind], min(len(OF_KIND[kind]), -(-facts // namesakes)))
    taken: set[str] = set()
    subjects = [(draw_once(lambda: rng.choice(POOLS[part][kind]), taken), kind) for _ in range(namesakes)]
    possible = list(product(subjects, relations))
    if facts > 2 and rng.random() < 0.3:  # and something else
        other = rng.choice(list(KINDS))
        subjects.append((draw_once(lambda: rng.choice(POOLS[part][other]), taken), other))
        possible.append((subjects[-1], rng.choice(OF_KIND[other])))
    stated = rng.sample(possible, min(facts, len(possible)))

    text, entities, found = "", [], []
    for name, kind in subjects:
        lines = [(relation, rng.choice(RELATIONS[relation].statements)) for (n, _), relation in stated if n == name]
        if rng.random() < 0.3:
            lines.append(("", rng.choice(KINDS[kind].remarks)))
        if lines:
            entities.append((name, kind))
        rng.shuffle(lines)
        for line, (relation, sentence) in enumerate(lines):
            value = draw_once(lambda relation=relation: draw_value(relation, part, rng), taken) if relation else ""
            year = draw_once(lambda: number("year", rng), taken) if "{y}" in sentence else ""
            before, _, after = sentence.replace("{y}", year).partition("{v}")
            entity = mention(name, kind, rng, pronoun=line > 0)
            text += " " if text else ""
            text += before.format(e=entity)
            if relation:
                found.append(Fact(name, relation, value, start=len(text)))
            text += value + after.format(e=entity)
    return Paragraph(text, tuple(entities), tuple(found))


def mention(name: str, kind: str, rng: random.Random, pronoun: bool) -> str:
    """The entity as a sentence names it: in full, by its name, or by a pronoun if the sentence before was about it."""
    if pronoun and rng.random() < 0.25:
        return KINDS[kind].pronoun
    return rng.choice((KINDS[kind].full, KINDS[kind].bare)).format(name)


def draw_value(relation: str, part: str, rng: random.Random) -> str:
    source = RELATIONS[relation].value
    if source in NUMBERS:
        return number(source, rng)
    return rng.choice(POOLS[part][source] if source in NAMES else WORDS[source])


def number(unit: str, rng: random.Random) -> str:
    low, high, step, after = NUMBERS[unit]
    return str(rng.randrange(low, high + 1, step)).translate(DIGITS) + after


def draw_once(sample: Callable[[], str], taken: set[str]) -> str:
    """A sample that this paragraph has not used yet."""
    while (value := sample()) in taken:
        pass
    taken.add(value)
    return value


def ask(relation: str, name: str, rng: random.Random) -> str:
    kind = RELATIONS[relation].kind
    return rng.choice(RELATIONS[relation].questions).format(e=mention(name, kind, rng, pronoun=False))


def unanswered(paragraph: Paragraph, part: str, rng: random.Random) -> tuple[str, str]:
    """A (relation, name) that the paragraph leaves open although it states something much like it.

    Either a relation that it states of a namesake in kind, or another relation of an entity that it does speak
    about, or a stated relation of a name that does not occur.
    """
    stated = {(fact.relation, fact.entity) for fact in paragraph.facts}
    relations = {relation for relation, _ in stated}
    open_ = [(r, name) for name, kind in paragraph.entities for r in OF_KIND[kind] if (r, name) not in stated]
    near = [pair for pair in open_ if pair[0] in relations]
    present = {name for name, _ in paragraph.entities}
    fact = rng.choice(paragraph.facts)
    absent = [name for name in POOLS[part][RELATIONS[fact.relation].kind] if name not in present]
    choices = [pairs for pairs in (near, open_) if pairs]
    return rng.choice([rng.choice(pairs) for pairs in choices] + [(fact.relation, rng.choice(absent))])
