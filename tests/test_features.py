"""Features, against HF's tokenizer call and the label rule of HF's question answering example."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from minitransformer.system.errors import DataError
from qa import squad
from qa.features import (
    answer_tokens,
    batches_by_tokens,
    collate,
    featurise,
    pair_template,
    window_starts,
)
from qa.squad import Answer, Example

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?اآبپتثجچحخدذرزژسشصضطظعغفقکگلمنوهی"


@pytest.fixture
def tokenizer() -> Tokenizer:
    """A WordPiece tokenizer like BERT's, lower case and without accents, whose pieces are single letters."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {piece: id for id, piece in enumerate([*specials, *LETTERS, *("##" + letter for letter in LETTERS)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(specials)
    return tokenizer


@pytest.fixture(scope="module")
def pquad(assets) -> list[Example]:
    return squad.read(assets / "data/pquad/Validation.json.gz")


@pytest.fixture
def e5(assets) -> Tokenizer:
    return Tokenizer.from_file(str(assets / "weights/e5-small-fa/tokenizer.json"))


def example(context: str, answer: str | None = None, question: str = "who?", id: str = "q1") -> Example:
    answers = () if answer is None else (Answer(answer, context.index(answer)),)
    return Example(id, "title", question, context, answers)


def random_examples(count: int, seed: int = 0) -> list[Example]:
    """Words of random letters; now and then white space doubles, at the edges too."""
    random = np.random.default_rng(seed)

    def text(most: int) -> str:
        letters = random.choice(list(LETTERS + "Éé\u200c \n" + " " * 12), size=random.integers(1, most))
        return "".join(letters)

    examples = []
    for number in range(count):
        context = text(120)
        begin, end = np.sort(random.integers(0, len(context) + 1, size=2)).tolist()
        answers = (Answer(context[begin:end], begin),) if begin < end and number % 4 else ()
        examples.append(Example(str(number), "", text(20), context, answers))
    return examples


def hf_features(examples: list[Example], tokenizer: Tokenizer, max_length: int, stride: int | None):
    """(example, input_ids, token_type_ids, context_start, offsets, start, end) in HF's way."""
    hf = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    windows = {"return_overflowing_tokens": True, "stride": stride} if stride is not None else {}
    coded = hf(
        [example.question.lstrip() for example in examples],  # as its run_qa.py does
        [example.context for example in examples],
        truncation="only_second",
        max_length=max_length,
        return_offsets_mapping=True,
        return_token_type_ids=True,
        **windows,
    )
    owners = coded.get("overflow_to_sample_mapping", range(len(examples)))
    for row, owner in enumerate(owners):
        of_context = [token for token, part in enumerate(coded.sequence_ids(row)) if part == 1]
        offsets = coded["offset_mapping"][row]
        label = hf_label(examples[owner], offsets, of_context)
        window = [offsets[token] for token in of_context]
        first = of_context[0] if of_context else None
        yield owner, coded["input_ids"][row], coded["token_type_ids"][row], first, window, *label


def hf_label(example: Example, offsets: list[tuple[int, int]], of_context: list[int]) -> tuple[int, int]:
    """The two loops of run_qa.py, with one difference: the first does not leave the context.

    There it does when the answer begins in the last token of the window: the offsets of [SEP] are (0, 0), which is no
    later than any answer, so the example labels such an answer's start with the last token of the whole row.
    """
    if not example.answers or not of_context:
        return 0, 0
    begin = example.answers[0].start
    end = begin + len(example.answers[0].text)
    start_token, end_token = of_context[0], of_context[-1]
    if not (offsets[start_token][0] <= begin and offsets[end_token][1] >= end):
        return 0, 0
    while start_token <= of_context[-1] and offsets[start_token][0] <= begin:
        start_token += 1
    while end_token >= of_context[0] and offsets[end_token][1] >= end:
        end_token -= 1
    return start_token - 1, end_token + 1


def assert_matches_hf(examples: list[Example], tokenizer: Tokenizer, max_length: int, stride: int | None) -> None:
    ours = featurise(examples, tokenizer, max_length, stride)
    expected = list(hf_features(examples, tokenizer, max_length, stride))
    assert len(ours) == len(expected)
    for feature, (owner, input_ids, token_type_ids, context_start, offsets, start, end) in zip(
        ours, expected, strict=True
    ):
        assert feature.example == owner
        assert feature.input_ids.tolist() == input_ids
        assert feature.token_type_ids.tolist() == token_type_ids
        assert context_start in (feature.context_start, None)
        assert list(map(tuple, feature.offsets.tolist())) == offsets
        assert (feature.start, feature.end) == (start, end), examples[owner].id


@pytest.mark.parametrize(("max_length", "stride"), [(512, None), (128, None), (128, 32)])
def test_features_match_hf_on_all_of_pquad(pquad, e5, max_length, stride):
    assert_matches_hf(pquad, e5, max_length, stride)


@pytest.mark.parametrize(("max_length", "stride"), [(512, None), (40, None), (40, 0), (40, 1), (40, 12), (40, 16)])
def test_features_match_hf_on_random_texts(tokenizer, max_length, stride):
    assert_matches_hf(random_examples(400), tokenizer, max_length, stride)


def test_features_match_hf_with_two_separators(tokenizer):
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    template = pair_template(tokenizer)
    assert template.between[0].tolist() == [3, 3]
    assert template.size == 4
    assert_matches_hf(random_examples(50), tokenizer, max_length=40, stride=8)


def test_pair_template_is_read_off_the_tokenizer(tokenizer):
    template = pair_template(tokenizer)
    assert template.before.tolist() == [[2], [0]]
    assert template.between.tolist() == [[3], [0]]
    assert template.after.tolist() == [[3], [1]]
    assert (template.question_type, template.context_type) == (0, 1)


def test_pair_template_needs_a_token_before_the_question(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    with pytest.raises(ValueError, match="no pair template"):
        pair_template(tokenizer)


def test_window_starts_overlap_by_the_stride_and_stop_at_the_end():
    assert list(window_starts(10, room=6, stride=2)) == [0, 4]
    assert list(window_starts(11, room=6, stride=2)) == [0, 4, 8]
    assert list(window_starts(6, room=6, stride=5)) == [0]
    assert list(window_starts(7, room=6, stride=5)) == [0, 1]
    assert list(window_starts(0, room=6, stride=2)) == [0]
    assert list(window_starts(100, room=6, stride=None)) == [0]


def test_windows_lose_no_answer_up_to_the_stride(pquad, e5):
    stride = 48
    whole = featurise(pquad, e5, max_length=512)
    windows = featurise(pquad, e5, max_length=160, stride=stride)
    found = {feature.example for feature in windows if feature.start > 0}
    short = {feature.example for feature in whole if feature.start > 0 and feature.end - feature.start < stride}
    assert len(short) > 5800
    assert short <= found


def test_labels_cut_the_answer_out_of_the_raw_context(pquad, e5):
    for feature in featurise(pquad, e5, max_length=128, stride=32):
        if feature.start:
            example = pquad[feature.example]
            first, last = feature.start - feature.context_start, feature.end - feature.context_start
            assert example.answers[0].text in example.context[feature.offsets[first, 0] : feature.offsets[last, 1]]


def test_labels_are_cls_without_an_answer_or_with_half_of_one(tokenizer):
    context = "a b c d e f g h"
    whole, none, half = featurise(
        [example(context, "c d"), example(context), example(context, "h")], tokenizer, max_length=14
    )
    assert (whole.start, whole.end) == (whole.context_start + 2, whole.context_start + 3)
    assert (none.start, none.end) == (0, 0)
    assert len(half.offsets) == 14 - 7
    assert (half.start, half.end) == (0, 0)


def test_labels_are_of_the_first_of_several_answers(tokenizer):
    answers = (Answer("b", 2), Answer("d", 6))
    (feature,) = featurise([Example("q1", "", "who?", "a b c d", answers)], tokenizer, max_length=32)
    assert feature.start == feature.end == feature.context_start + 1


def test_label_in_the_last_token_of_a_window_stays_in_the_context(tokenizer):
    (feature,) = featurise([example("a b c", "c")], tokenizer, max_length=32)
    assert feature.start == feature.end == feature.context_start + 2


def test_answer_tokens_take_a_piece_with_the_space_before_it():
    offsets = np.array([(0, 4), (4, 9), (9, 10)])  # of "born 1943."
    assert answer_tokens(offsets, Answer("1943", 5)) == (1, 1)
    assert answer_tokens(offsets, Answer("94", 6)) == (1, 1)
    assert answer_tokens(offsets, Answer("n 1943.", 3)) == (0, 2)
    assert answer_tokens(offsets[1:], Answer("born", 0)) is None
    assert answer_tokens(offsets[:2], Answer("1943.", 5)) is None


def test_answer_tokens_of_one_character_in_two_tokens_are_in_order():
    offsets = np.array([(0, 1), (1, 2), (1, 2), (2, 3)])  # of "a½b", where the middle became two tokens
    assert answer_tokens(offsets, Answer("½", 1)) == (1, 2)


def test_answer_tokens_need_no_rising_offsets():
    offsets = np.array([(0, 2), (3, 4), (2, 3), (4, 6)])
    assert answer_tokens(offsets, Answer("xy", 4)) == (3, 3)
    assert answer_tokens(offsets, Answer("wxyz", 2)) == (0, 3)


def test_offsets_count_code_points_of_a_decomposed_context(tokenizer):
    context = "a\u0627\u0653b e\u0301e\u0301 \u200c \u0627\u0653\u0628"  # NFD, as most of PQuAD
    (feature,) = featurise([example(context, "\u0627\u0653\u0628")], tokenizer, max_length=64)
    first = feature.offsets[feature.start - feature.context_start, 0]
    last = feature.offsets[feature.end - feature.context_start, 1]
    assert context[first:last] == "\u0627\u0653\u0628"
    assert feature.offsets.dtype == np.int32


def test_questions_are_read_as_they_are(tokenizer):
    examples = [example("a b c", "b", question=question) for question in ("who?", "  who?", "who?\n", " ", "")]
    assert_matches_hf(examples, tokenizer, max_length=64, stride=4)
    plain, leading, *_, blank, empty = featurise(examples, tokenizer, max_length=64)
    assert plain.input_ids.tolist() == leading.input_ids.tolist()
    assert blank.input_ids.tolist() == empty.input_ids.tolist() == [2, 3, *plain.input_ids[-4:]]


def test_a_question_behind_25_000_blanks_is_read_as_without_them(tokenizer):
    """SQuAD 2.0's training set has one; and a tokenizer that keeps blanks would fill the input with them."""
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    tokenizer.normalizer = None
    plain, behind = (
        featurise([example("a b c", "b", question=question)], tokenizer, max_length=64)[0]
        for question in ("who", 25_000 * " " + "who")
    )
    assert behind.input_ids.tolist() == plain.input_ids.tolist()
    with pytest.raises(DataError, match=r"question q1: 10,001 characters long: shorten it"):
        featurise([example("a b c", "b", question=10_001 * "x")], tokenizer, max_length=64)


@pytest.mark.parametrize("stride", [None, 4])
@pytest.mark.parametrize("context", ["", " ", "\x00\x01\u200c"])
def test_context_without_tokens_makes_one_empty_window(tokenizer, context, stride):
    (feature,) = featurise([Example("1", "", "who?", context, (Answer(context, 0),))], tokenizer, 32, stride)
    assert feature.offsets.shape == (0, 2)
    assert feature.context_start == len(feature.input_ids) - 1
    assert (feature.start, feature.end) == (0, 0)
    assert not collate([feature], pad_id=0).context_mask.any()


def test_context_of_100_000_words_is_read_to_its_end(tokenizer):
    context = "a b c d " * 25_000 + "z"
    features = featurise([example(context, "z")], tokenizer, max_length=384, stride=128)
    assert features[-1].offsets[-1].tolist() == [len(context) - 1, len(context)]
    assert features[-1].start == features[-1].end == features[-1].context_start + len(features[-1].offsets) - 1
    for earlier, later in pairwise(features):
        assert (earlier.offsets[-128:] == later.offsets[:128]).all()


def test_tokenizer_keeps_the_truncation_and_padding_it_came_with(tokenizer):
    context = "a b c d e f g h"
    free = featurise([example(context)], tokenizer, max_length=64)
    tokenizer.enable_truncation(4, stride=1)
    tokenizer.enable_padding(length=32)
    before = tokenizer.truncation, tokenizer.padding
    (feature,) = featurise([example(context)], tokenizer, max_length=64)
    assert feature.input_ids.tolist() == free[0].input_ids.tolist()
    assert (tokenizer.truncation, tokenizer.padding) == before


@pytest.mark.parametrize("stride", [None, 0, 4])
def test_question_without_room_for_the_context_is_named(tokenizer, stride):
    long = example("a b c d e f g h", question="w" * 20, id="q-77")
    enough = 3 + 20 + 1 + (stride or 0)
    assert featurise([long], tokenizer, enough, stride)
    with pytest.raises(DataError, match=r"^question q-77: .*raise max_length") as error:
        featurise([long], tokenizer, enough - 1, stride)
    assert "\n" not in str(error.value)


def test_short_context_may_fit_where_windows_would_not(tokenizer):
    (feature,) = featurise([example("a b", "b")], tokenizer, max_length=3 + 4 + 2, stride=100)
    assert len(feature.offsets) == 2


def test_negative_stride_and_too_small_max_length_are_refused(tokenizer):
    with pytest.raises(DataError, match="stride -1"):
        featurise([example("a")], tokenizer, max_length=64, stride=-1)
    with pytest.raises(DataError, match=r"max_length 2 .*3 special tokens"):
        featurise([example("a")], tokenizer, max_length=2)


def test_collate_pads_to_the_longest(tokenizer):
    batch = collate(featurise([example("a b c", "b c"), example("a")], tokenizer, max_length=64), pad_id=9)
    assert batch.input_ids.shape == (2, 10)
    assert batch.input_ids.dtype == batch.token_type_ids.dtype == batch.start.dtype == batch.end.dtype == torch.int64
    assert batch.attention_mask.dtype == batch.context_mask.dtype == torch.bool
    assert batch.input_ids[1, 8:].tolist() == [9, 9]
    assert batch.token_type_ids.tolist() == [[0] * 6 + [1] * 4, [0] * 6 + [1] * 2 + [0] * 2]
    assert batch.attention_mask.sum(1).tolist() == [10, 8]
    assert batch.context_mask.nonzero().tolist() == [[0, 6], [0, 7], [0, 8], [1, 6]]
    assert (batch.start.tolist(), batch.end.tolist()) == ([7, 0], [8, 0])


def test_batches_by_tokens_bound_the_padded_size(tokenizer):
    features = featurise(random_examples(200), tokenizer, max_length=64)
    lengths = [len(feature.input_ids) for feature in features]
    batches = batches_by_tokens(features, max_tokens=256)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(200))
    assert [lengths[index] for index in flat] == sorted(lengths)
    for batch, following in pairwise(batches):
        assert len(batch) * max(lengths[index] for index in batch) <= 256
        assert (len(batch) + 1) * lengths[following[0]] > 256  # one more would not have fitted


def test_batches_by_tokens_hold_one_feature_at_least(tokenizer):
    features = featurise([example("a b c"), example("a")], tokenizer, max_length=64)
    assert batches_by_tokens(features, max_tokens=1) == [[1], [0]]
    assert batches_by_tokens([], max_tokens=1) == []
