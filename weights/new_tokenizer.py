"""Train a WordPiece tokenizer on your own text (BERT, section 3).

The pieces are learned here and not by `tokenizers`, whose trainer breaks ties by a hash that differs from process to
process: the same text must give the same ids, or no run could be repeated.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from minitransformer.system.progress import progress
from weights.tokenizer import BERT_SPECIAL

HALF_SPACE = "\u200c"  # ZWNJ, which joins the parts of a Persian word: می‌شود
INSIDE = "##"  # WordPiece's mark of a piece that does not begin a word


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens, special ones included, with BERT's pair template and padding.

    It keeps the half-space: می‌شود is two words to it, می and ‌شود. Text is composed (NFC) and the Arabic letters that
    some keyboards give for ی and ک become Persian; offsets count in the raw text all the same.
    """
    special = [BERT_SPECIAL[f"{part}_token"] for part in ("pad", "unk", "cls", "sep", "mask")]
    pad, unk, cls, sep, _ = special
    normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("ي", "ی"), normalizers.Replace("ك", "ک")])
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Split(HALF_SPACE, behavior="merged_with_next"),
        ]
    )
    words: Counter[str] = Counter()
    for chunk, times in Counter(chunk for text in texts for chunk in text.split()).items():
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(chunk)):
            words[word] += times
    pieces = special + learn_pieces(words, vocabulary - len(special))

    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token=unk))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return tokenizer


def learn_pieces(words: Counter[str], size: int) -> list[str]:
    """At most `size` pieces: the letters, the most frequent first, then again and again the most frequent pair of
    neighbours as one piece (Sennrich et al. 2016), until no pair occurs twice.

    words: how often each occurs. Ties go to the pair that sorts first.
    """
    spelling = {word: [word[0], *(INSIDE + letter for letter in word[1:])] for word in words}
    letters: Counter[str] = Counter()
    count: Counter[tuple[str, str]] = Counter()
    found_in: dict[tuple[str, str], set[str]] = defaultdict(set)
    for word, parts in spelling.items():
        for part in parts:
            letters[part] += words[word]
        for pair in pairwise(parts):
            count[pair] += words[word]
            found_in[pair].add(word)

    pieces = sorted(letters, key=lambda letter: (-letters[letter], letter))[:size]
    known = set(pieces)
    queue = [(-times, pair) for pair, times in count.items()]
    heapq.heapify(queue)
    bar = progress(total=size, desc="training the tokenizer", unit="piece", leave=False)
    while queue and len(pieces) < size:
        bar.update(len(pieces) - bar.n)
        times, pair = heapq.heappop(queue)
        if -times != count[pair]:  # an old entry: it was queued again when its count changed
            continue
        if -times < 2:
            break
        joined = pair[0] + pair[1].removeprefix(INSIDE)
        if joined not in known:
            pieces.append(joined)
            known.add(joined)
        changed = set()
        for word in found_in.pop(pair):
            before = list(pairwise(spelling[word]))
            spelling[word] = _join(spelling[word], pair, joined)
            after = list(pairwise(spelling[word]))
            for old in before:
                count[old] -= words[word]
            for new in after:
                count[new] += words[word]
                found_in[new].add(word)
            changed.update(before, after)
        for other in changed:
            heapq.heappush(queue, (-count[other], other))
    bar.close()
    return pieces


def _join(parts: list[str], pair: tuple[str, str], joined: str) -> list[str]:
    """The parts of a word with each occurrence of `pair`, from the left, replaced by one part."""
    result = []
    place = 0
    while place < len(parts):
        if tuple(parts[place : place + 2]) == pair:
            result.append(joined)
            place += 2
        else:
            result.append(parts[place])
            place += 1
    return result
