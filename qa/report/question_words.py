"""Which kind of thing a question asks for, told by its question word, Persian or English."""

import re

from qa.metrics import persian_tokens

# The first that fits counts, so phrases stand before the words in them. Matched in folded text, at word boundaries.
KINDS = {
    "who · چه کسی": "چه کسی|چه کسانی|چه شخصی|کیست|کیستند|who|whom|whose",
    "when · کی": "چه زمانی|چه سالی|چه سال|چه تاریخی|چه وقت|چه دوره ای|چه قرنی|کی|when|what year",
    "how many · چند": "چند|چندم|چندمین|چقدر|چه قدر|چه تعداد|چه مقدار|چه میزان|how many|how much|how long|how far",
    "where · کجا": "کجا|کجاست|کجای|چه کشوری|چه شهری|where",
    "why · چرا": "چرا|چه دلیل|چه دلیلی|چه علت|چه علتی|why",
    "how · چگونه": "چگونه|چطور|چه طور|how",
    "which · کدام": "کدام|کدامند|کدامست|which",
    "what · چه": "چه|چیست|چی|چیستند|چیزی|what",
}
OTHER = "other"
PATTERNS = {kind: re.compile(rf"\b(?:{words})\b") for kind, words in KINDS.items()}


def kind_of(question: str) -> str:
    """One of KINDS, or OTHER."""
    folded = " ".join(persian_tokens(question))
    return next((kind for kind, pattern in PATTERNS.items() if pattern.search(folded)), OTHER)
