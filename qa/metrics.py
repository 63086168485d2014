"""Exact match and F1 as SQuAD 2.0 counts them, and the same on texts that a Persian reader would call equal.

Rajpurkar, Jia and Liang 2018. Every figure under an official name equals that of their script `evaluate-v2.0.py` to
the last bit, its oddities included; a comment marks each. `fa_exact` and `fa_f1` are ours.
"""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real

from minitransformer.system.errors import DataError
from qa.squad import Example

Scores = dict[str, float]  # question id -> 0 to 1

ARTICLES = re.compile(r"\b(a|an|the)\b")
ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_v2(
    gold: Mapping | Sequence,
    predictions: Mapping[str, str],
    no_answer_probability: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Scores in percent under the official names, then `fa_exact` and `fa_f1`.

    gold: id -> answer texts, none for a question without answer; or examples; or a SQuAD document or its "data".
    predictions: id -> text, "" for "no answer". Ids that gold lacks are ignored; ids that only gold has are an error.
    no_answer_probability: id -> number, on any scale. Strictly above `threshold`, the prediction counts as "".
    Given, it also yields the threshold that would have been best in hindsight (`best_*`).
    `HasAns_*` and `NoAns_*` are there only if there are such questions. Raises DataError.
    """
    gold = gold_answers(gold)
    texts = _predicted_texts(gold, predictions)
    threshold = _number(threshold, "threshold")
    if no_answer_probability is None:
        probability = dict.fromkeys(gold, 0.0)
    else:
        probability = _probabilities(gold, no_answer_probability)

    # Declining is right where gold lists no answer at all. (So a question whose answers are only punctuation is wrong
    # here, though an empty prediction below the threshold would be right.)
    declined = {key: float(not gold[key]) for key in gold if probability[key] > threshold}
    raw_exact, raw_f1 = raw_scores(gold, texts, official_tokens)
    exact, f1 = raw_exact | declined, raw_f1 | declined
    metrics = {"exact": _percent(exact), "f1": _percent(f1), "total": len(gold)}
    answerable = [key for key in gold if gold[key]]
    unanswerable = [key for key in gold if not gold[key]]
    for prefix, keys in ("HasAns", answerable), ("NoAns", unanswerable):
        if keys:
            metrics[f"{prefix}_exact"] = _percent({key: exact[key] for key in keys})
            metrics[f"{prefix}_f1"] = _percent({key: f1[key] for key in keys})
            metrics[f"{prefix}_total"] = len(keys)
    if no_answer_probability is not None:
        for name, scores in ("best_exact", raw_exact), ("best_f1", raw_f1):
            metrics[name], metrics[f"{name}_thresh"] = best_threshold(gold, texts, scores, probability)
    fa_exact, fa_f1 = raw_scores(gold, texts, persian_tokens)
    return metrics | {"fa_exact": _percent(fa_exact | declined), "fa_f1": _percent(fa_f1 | declined)}


def raw_scores(
    gold: Mapping[str, list[str]], texts: Mapping[str, str], tokens: Callable[[str], list[str]]
) -> tuple[Scores, Scores]:
    """Exact match and F1 of each question, each against the answer that suits it best, without any threshold."""
    exact, f1 = {}, {}
    for key, answers in gold.items():
        predicted = tokens(texts[key])
        # An answer of which normalisation leaves nothing does not count; with none left, only "" is right.
        wanted = [answer for answer in map(tokens, answers) if answer] or [[]]
        exact[key] = max(int(answer == predicted) for answer in wanted)
        f1[key] = max(token_f1(answer, predicted) for answer in wanted)
    return exact, f1


def token_f1(answer: list[str], predicted: list[str]) -> float:
    """Harmonic mean of precision and recall over two bags of tokens; with an empty one, whether both are."""
    if not answer or not predicted:
        return int(answer == predicted)
    common = (Counter(answer) & Counter(predicted)).total()
    if common == 0:
        return 0
    precision = common / len(predicted)
    recall = common / len(answer)
    return (2 * precision * recall) / (precision + recall)  # in the official order of operations: same last bit


def best_threshold(
    gold: Mapping[str, list[str]], texts: Mapping[str, str], scores: Scores, probability: Mapping[str, float]
) -> tuple[float, float]:
    """The best score in percent that any threshold reaches, and the lowest threshold that reaches it.

    At first every question is declined, and those without answer are right. Then one at a time, from the least
    probable "no answer" on, is let through: it gains its score, or loses the point for having declined.
    Questions of equal probability are let through one by one too, in the order of `probability`, although no threshold
    can part them. That is the official behaviour, as is the 0.0 where declining everything is best.
    """
    current = best = sum(not answers for answers in gold.values())
    threshold = 0.0
    for key in sorted(probability, key=probability.__getitem__):
        if gold[key]:
            current += scores[key]
        elif texts[key]:
            current -= 1
        if current > best:
            best, threshold = current, probability[key]
    return 100.0 * best / len(gold), threshold


def official_tokens(text: str) -> list[str]:
    """Lower case, ASCII punctuation deleted, English articles dropped, split at white space.

    Two texts match exactly when their tokens are equal. Persian punctuation and the half-space stay as they are.
    """
    return ARTICLES.sub(" ", text.lower().translate(ASCII_PUNCTUATION)).split()


def persian_tokens(text: str) -> list[str]:
    return official_tokens(fold_persian(text))


# One character to another, or to None. Applied after NFKC.
PERSIAN_FOLDS = str.maketrans(
    {
        # Arabic keyboards and old Windows fonts have these for Persian ی and ک; readers see no difference.
        "\u064a": "ی",  # ARABIC LETTER YEH
        "\u0649": "ی",  # ARABIC LETTER ALEF MAKSURA
        "\u0643": "ک",  # ARABIC LETTER KAF
        # خانهٔ ("house of") is spelt with this one letter, with ه and a mark, or with the mark left out.
        "\u06c0": "ه",  # ARABIC LETTER HEH WITH YEH ABOVE
        # می‌شود is as often typed می شود. Deleting the half-space instead would give a third form, میشود.
        "\u200c": " ",  # ZERO WIDTH NON-JOINER
    }
    # Vowel marks, tanween, shadda, sukun, and the madda and hamza marks that NFKC could not join to their letter: they
    # are optional in writing. NFKC has joined آ أ ؤ ئ into one letter each, and those stay.
    | dict.fromkeys(map(chr, [*range(0x064B, 0x0660), 0x0670]))
    # Tatweel only stretches a word. The others are invisible: soft hyphen, zero width space, joiner, byte order mark,
    # and the direction marks that word processors leave behind.
    | dict.fromkeys("\u0640\u00ad\u200b\u200d\ufeff\u200e\u200f")
    | dict.fromkeys(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
    # What ASCII punctuation is to the official metric. The decimal and thousands separators go as "." and "," do.
    | dict.fromkeys("«»‹›“”‘’،؛؟۔٪٫٬٭·–—−")
    # ۰-۹ and the Arabic ٠-٩ (they differ at 4, 5 and 6), so that ۱۳۵۷ is 1357.
    | {chr(zero + digit): str(digit) for zero in (0x06F0, 0x0660) for digit in range(10)}
)


def fold_persian(text: str) -> str:
    """The text without the differences that a Persian reader overlooks; the table above names each and its reason.

    NFKC comes first. It joins letters to their marks (most PQuAD contexts are decomposed, most questions are not), so
    that آ survives the removal of marks, and it replaces presentation forms such as ﻻ, no-break spaces and "…".
    """
    return unicodedata.normalize("NFKC", text).translate(PERSIAN_FOLDS)


def gold_answers(gold: Mapping | Sequence) -> dict[str, list[str]]:
    """Each question's answer texts, from any of the forms that `squad_v2` takes. Raises DataError on others."""
    if isinstance(gold, Mapping) and "data" in gold and _is_articles(gold["data"]):
        gold = gold["data"]
    if isinstance(gold, Mapping):
        pairs = list(gold.items())
    elif not isinstance(gold, Sequence) or isinstance(gold, str):
        raise DataError(f"gold: found {type(gold).__name__}; give id -> answer texts, examples, or a SQuAD document")
    elif all(isinstance(item, Example) for item in gold):
        pairs = [(example.id, [answer.text for answer in example.answers]) for example in gold]
    else:
        pairs = list(_document_answers(gold))
    answers = {key: _texts(key, texts) for key, texts in pairs}
    if not answers:
        raise DataError("gold: there are no questions; give at least one")
    if len(answers) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise DataError(f"gold: the id {twice!r} stands twice; give every question its own")
    return answers


def _is_articles(data: object) -> bool:
    """Whether `data` is a document's list of articles, not the answer texts of a question whose id is "data"."""
    return isinstance(data, Sequence) and bool(data) and all(isinstance(item, Mapping) for item in data)


def _document_answers(articles: Sequence) -> Iterator[tuple[str, list[str]]]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    if not isinstance(qa["id"], str):
                        raise TypeError("ids are strings")
                    yield qa["id"], [answer["text"] for answer in qa["answers"]]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError("gold: not the shape of a SQuAD document; qa.squad.read names the place") from error


def _texts(key: str, texts: object) -> list[str]:
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"gold: question {key!r} has {texts!r:.60}; give a list of answer texts")
    return list(texts)


def _predicted_texts(gold: Mapping[str, list[str]], predictions: object) -> dict[str, str]:
    texts = _for_gold(gold, predictions, "predictions", 'give a text for each, "" for "no answer"')
    for key, text in texts.items():
        if not isinstance(text, str):
            raise DataError(f'predictions: question {key!r} has {text!r:.60}; give a text, "" for "no answer"')
    return texts


def _probabilities(gold: Mapping[str, list[str]], probability: object) -> Scores:
    name = "no_answer_probability"
    chosen = _for_gold(gold, probability, name, "give a number for each")
    return {key: _number(value, f"{name}: question {key!r}") for key, value in chosen.items()}


def _for_gold(gold: Mapping[str, list[str]], values: object, name: str, remedy: str) -> dict:
    """The values whose ids gold knows, in the order they were given: `best_threshold` breaks ties by it."""
    if not isinstance(values, Mapping):
        raise DataError(f"{name}: found {type(values).__name__}; give a mapping from question id")
    chosen = {key: value for key, value in values.items() if key in gold}
    missing = [key for key in gold if key not in chosen]
    if missing:
        raise DataError(f"{name}: {len(missing)} of {len(gold)} questions have none, first {missing[0]!r}; {remedy}")
    return chosen


def _number(value: object, name: str) -> float:
    """`value` as a float, infinity allowed. Raises DataError on anything else, NaN included: it has no order."""
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError as error:
        raise DataError(f"{name}: found an integer beyond the range of floats; give a smaller number") from error
    if math.isnan(number):
        raise DataError(f"{name}: found {value!r:.60}; give a number")
    return number


def _percent(scores: Scores) -> float:
    return 100.0 * sum(scores.values()) / len(scores)
