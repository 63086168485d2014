"""Tokenizers read from a folder, against transformers' on the same files."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertTokenizer

from minitransformer.errors import WeightsError
from tiny import SPECIALS, VOCABULARY, rewrite_json, write_vocabulary
from weights.tokenizer import load_tokenizer, special_tokens

TEXTS = [
    "",
    " ",
    "پایتخت ایران کجاست؟",
    "می\u200cشود و نمی\u200cشود",  # the half-space
    "سا\u0655\u0654ری آب",  # decomposed Unicode, as most of PQuAD is
    "آ آ أ ا\u0654 ي ك ۀ هٔ",
    "12 ۱۲ ١٢ ½ ²",  # digits of three scripts, and some that decompose
    "تهران 😀👩\u200d👧 است",
    "Éa e\u0301 İstanbul STRASSE ß ﬁ",
    "中文 and 日本",
    "a\tb\r\nc\x00d\u00a0e\u2028f\ufeffg\x85h\x1b[31m",
    "«پاریس»، (به) a.b,c!",
    "x" * 101,  # BERT gives up on words of more than 100 letters
    "[CLS] [MASK] [sep] ##a #",
    "\u202eتهران\u202c \u064bً",
]


def same(ours: Tokenizer, theirs: BertTokenizer, *texts: str) -> None:
    ours = ours.encode(*texts)
    theirs = theirs(*([text] for text in texts), return_offsets_mapping=True)  # not in a batch, "" would be no text
    assert [ours.ids] == theirs["input_ids"], texts
    assert [ours.type_ids] == theirs["token_type_ids"], texts
    assert [ours.offsets] == theirs["offset_mapping"], texts


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("accents", [None, True, False])
def test_vocab_txt_tokenizer_matches_hf(tmp_path, lower, accents):
    folder = write_vocabulary(tmp_path, do_lower_case=lower, strip_accents=accents)
    ours, theirs = load_tokenizer(folder), BertTokenizer.from_pretrained(folder)
    for text in TEXTS:
        same(ours, theirs, text)
        same(ours, theirs, text, "تهران است")
        same(ours, theirs, "تهران است", text)


@pytest.mark.parametrize("chinese", [True, False])
def test_vocab_txt_tokenizer_matches_hf_on_chinese(tmp_path, chinese):
    folder = write_vocabulary(tmp_path, [*VOCABULARY, "中", "文", "中文"], tokenize_chinese_chars=chinese)
    same(load_tokenizer(folder), BertTokenizer.from_pretrained(folder), "中文 and 中 文")


def test_vocab_txt_alone_is_read_as_hf_reads_it(tmp_path):
    folder = write_vocabulary(tmp_path)
    (folder / "tokenizer_config.json").unlink()  # ParsBERT has none
    ours, theirs = load_tokenizer(folder), BertTokenizer.from_pretrained(folder)
    for text in TEXTS:
        same(ours, theirs, text, "b")


def test_vocab_txt_with_windows_line_ends_is_the_same(tmp_path):
    write_vocabulary(tmp_path / "unix")
    write_vocabulary(tmp_path / "windows")
    data = (tmp_path / "unix/vocab.txt").read_bytes()
    (tmp_path / "windows/vocab.txt").write_bytes(data.replace(b"\n", b"\r\n").removesuffix(b"\r\n"))
    vocabularies = [load_tokenizer(tmp_path / name).get_vocab() for name in ("unix", "windows")]
    assert vocabularies[0] == vocabularies[1]


def test_vocab_txt_with_special_tokens_of_other_names(tmp_path):
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    vocabulary = ["<pad>", "<unk>", "<s>", "</s>", *VOCABULARY[4:]]
    settings = {**names, "mask_token": {"content": "[MASK]", "lstrip": False}}  # as an AddedToken is written
    tokenizer = load_tokenizer(write_vocabulary(tmp_path, vocabulary, **settings))
    assert tokenizer.encode("a", "b").tokens == ["<s>", "a", "</s>", "b", "</s>"]
    assert special_tokens(tokenizer) == ("<s>", "</s>", "<pad>", "<unk>", "[MASK]")


def test_special_tokens_are_read_off_the_tokenizer(tmp_path):
    assert special_tokens(load_tokenizer(write_vocabulary(tmp_path))) == ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


@pytest.fixture
def json_folder(tmp_path):
    """A folder with a tokenizer.json and no vocab.txt, as HF writes it."""
    BertTokenizer.from_pretrained(write_vocabulary(tmp_path / "from")).save_pretrained(tmp_path / "json")
    (tmp_path / "json/config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(VOCABULARY)}))
    (tmp_path / "json/vocab.txt").unlink(missing_ok=True)
    return tmp_path / "json"


def test_tokenizer_json_matches_hf(json_folder):
    ours, theirs = load_tokenizer(json_folder), AutoTokenizer.from_pretrained(json_folder)
    for text in TEXTS:
        same(ours, theirs, text)
        same(ours, theirs, text, "تهران است")


def test_tokenizer_json_without_a_template_gets_berts(json_folder):
    path = json_folder / "tokenizer.json"
    rewrite_json(path, post_processor=None)
    assert Tokenizer.from_file(str(path)).encode("a", "b").tokens == ["a", "b"]
    encoding = load_tokenizer(json_folder).encode("a", "b")
    assert encoding.tokens == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 1, 1]


def test_tokenizer_json_that_truncates_and_pads_does_neither_to_one_text(json_folder):
    tokenizer = Tokenizer.from_file(str(json_folder / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16, pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(json_folder / "tokenizer.json"))
    tokenizer = load_tokenizer(json_folder)
    assert len(tokenizer.encode("a").ids) == 3
    assert len(tokenizer.encode(100 * "a ").ids) == 102
    assert [len(encoding.ids) for encoding in tokenizer.encode_batch(["a", "a a"])] == [4, 4]


def test_tokenizer_pads_a_batch_with_the_padding_token(json_folder):
    short, _ = load_tokenizer(json_folder).encode_batch(["a", "a b c"])
    assert short.tokens == ["[CLS]", "a", "[SEP]", "[PAD]", "[PAD]"]
    assert short.attention_mask == [1, 1, 1, 0, 0]


def test_tokenizer_json_wins_over_vocab_txt(json_folder):
    (json_folder / "vocab.txt").write_text("nothing\n")
    assert load_tokenizer(json_folder).get_vocab_size() == len(VOCABULARY)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"version": "1.0", "model": {}}', "cut"])
def test_tokenizer_json_that_is_none_is_refused(json_folder, damage):
    path = json_folder / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: len(text) // 2] if damage == "cut" else damage, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"tokenizer\.json: not a tokenizer .*; fetch the file again"):
        load_tokenizer(json_folder)


def test_tokenizer_json_that_is_not_utf_8_is_refused(json_folder):
    (json_folder / "tokenizer.json").write_bytes(b'{"\xff"}')
    with pytest.raises(WeightsError, match="not UTF-8"):
        load_tokenizer(json_folder)


def test_folder_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no tokenizer\.json and no vocab\.txt"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("missing", SPECIALS)
def test_vocabulary_without_a_special_token_is_refused(tmp_path, missing):
    folder = write_vocabulary(tmp_path, [piece for piece in VOCABULARY if piece != missing])
    with pytest.raises(WeightsError, match="is not in it: the vocabulary is of another checkpoint"):
        load_tokenizer(folder)


def test_vocabulary_that_is_empty_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="the vocabulary is of another checkpoint"):
        load_tokenizer(write_vocabulary(tmp_path, []))


@pytest.mark.parametrize("size", [len(VOCABULARY) - 1, 1])
def test_tokenizer_of_a_larger_vocabulary_is_of_another_checkpoint(tmp_path, size):
    rewrite_json(write_vocabulary(tmp_path) / "config.json", vocab_size=size)
    with pytest.raises(WeightsError, match=rf"ids up to {len(VOCABULARY) - 1}, config\.json's vocab_size is {size}"):
        load_tokenizer(tmp_path)


def test_tokenizer_of_more_segments_is_of_another_checkpoint(tmp_path):
    rewrite_json(write_vocabulary(tmp_path) / "config.json", type_vocab_size=1)
    with pytest.raises(WeightsError, match=r"segments of a pair up to 1, config\.json's type_vocab_size is 1"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("value", [None, 3, ""])
def test_tokenizer_config_without_a_name_for_padding_is_refused(json_folder, value):
    rewrite_json(json_folder / "tokenizer.json", padding=None)
    rewrite_json(json_folder / "tokenizer_config.json", pad_token=value)
    with pytest.raises(WeightsError, match=r"no pad_token; name it in tokenizer_config\.json"):
        load_tokenizer(json_folder)


def test_tokenizer_config_that_names_an_unknown_token_is_refused(json_folder):
    rewrite_json(json_folder / "tokenizer.json", padding=None)
    rewrite_json(json_folder / "tokenizer_config.json", pad_token="[NONE]")
    with pytest.raises(WeightsError, match=r"has no '\[NONE\]'"):
        load_tokenizer(json_folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", 5000 * "["])
def test_tokenizer_config_that_is_not_json_is_refused(tmp_path, text):
    (write_vocabulary(tmp_path) / "tokenizer_config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"tokenizer_config\.json: not (JSON|a JSON object)"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("key", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
def test_tokenizer_config_with_a_setting_of_the_wrong_type_is_refused(tmp_path, key):
    with pytest.raises(WeightsError, match=rf"tokenizer_config\.json: {key} is 'yes'"):
        load_tokenizer(write_vocabulary(tmp_path, **{key: "yes"}))
