"""A tokenizer of one's own, trained on one's own text."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from weights.tokenizer import BERT_SPECIAL

HALF_SPACE = "\u200c"  # ZWNJ, which joins the parts of a Persian word: می‌شود


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A WordPiece tokenizer (BERT, section 3) that keeps the half-space: می‌شود is two tokens, می and ‌شود.

    Text is composed (NFC), and the Arabic letters that some keyboards write for ی and ک become Persian; offsets
    count in the raw text all the same.
    """
    special = [BERT_SPECIAL[f"{part}_token"] for part in ("pad", "unk", "cls", "sep", "mask")]
    pad, unk, cls, sep, _ = special
    tokenizer = Tokenizer(models.WordPiece(unk_token=unk))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace("ي", "ی"), normalizers.Replace("ك", "ک")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Split(HALF_SPACE, behavior="merged_with_next"),
        ]
    )
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return tokenizer
