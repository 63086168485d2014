"""Tokenizers read from a folder, against transformers' on the same files."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import AlbertTokenizer, AutoTokenizer, BertTokenizer

from minitransformer.albert import Albert, AlbertConfig
from minitransformer.system.errors import WeightsError
from qa import squad
from tiny import (
    SPECIALS,
    TEXTS,
    VOCABULARY,
    contexts,
    examples,
    rewrite_json,
    same,
    same_in_all_places,
    same_in_bulk,
    train_spiece,
    write_spiece,
    write_vocabulary,
)
from weights import save_pretrained
from weights.folder import LARGEST_TEXT, read_json
from weights.new_tokenizer import learn_pieces
from weights.tokenizer import encode_batch, load_tokenizer, ordinary_ids, special_tokens

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def training_texts(assets):
    return contexts(assets / "data/pquad/Test.json.gz")[:500]


@pytest.fixture(scope="module")
def pquad_texts(assets):
    """All that a tokenizer meets in PQuAD's validation: contexts and questions."""
    path = assets / "data/pquad/Validation.json.gz"
    return contexts(path) + [example.question for example in squad.read(path)]


@pytest.fixture(scope="module")
def persian_vocabulary(training_texts):
    """A vocab.txt of the kind that ParsBERT has."""
    normalizer, splitter = BertNormalizer(), BertPreTokenizer()
    words = Counter(
        word for text in training_texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    return SPECIALS + learn_pieces(words, 2500)


@pytest.fixture(scope="module", params=["nmt_nfkc", "identity"])
def persian_spiece(request, training_texts):
    """A spiece.model of the kind that ALBERT-fa has, with a character map and without."""
    return train_spiece(training_texts, vocab_size=4000, normalization_rule_name=request.param)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("accents", [None, True, False])
def test_vocab_txt_tokenizer_matches_hf(tmp_path, lower, accents):
    folder = write_vocabulary(tmp_path, do_lower_case=lower, strip_accents=accents)
    same_in_all_places(load_tokenizer(folder), BertTokenizer.from_pretrained(folder))


def test_vocab_txt_tokenizer_matches_hf_on_all_of_pquad(tmp_path, persian_vocabulary, pquad_texts):
    folder = write_vocabulary(tmp_path, persian_vocabulary)
    same_in_bulk(load_tokenizer(folder), BertTokenizer.from_pretrained(folder), pquad_texts)


def test_vocab_txt_tokenizer_matches_hf_on_pquad_in_each_setting(tmp_path, persian_vocabulary, pquad_texts):
    flags = [True, False]
    for lower, accents, chinese in product(flags, [None, *flags], flags):
        settings = {"do_lower_case": lower, "strip_accents": accents, "tokenize_chinese_chars": chinese}
        folder = write_vocabulary(tmp_path, persian_vocabulary, **settings)
        same_in_bulk(load_tokenizer(folder), BertTokenizer.from_pretrained(folder), TEXTS + pquad_texts[::50])


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


@pytest.mark.parametrize("place", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens_decoder"])
@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
def test_vocab_txt_with_a_special_token_written_out_matches_hf(tmp_path, place, flag):
    token = {"content": "[MASK]", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    token[flag] = True
    settings = {
        "tokenizer_config.json": {"mask_token": token | {"__type": "AddedToken"}},
        "special_tokens_map.json": {},
        "added_tokens_decoder": {"added_tokens_decoder": {"4": token | {"special": True}}},
    }
    folder = write_vocabulary(tmp_path, **settings[place])
    if place != "tokenizer_config.json":  # of no account beside added_tokens_decoder
        names = {"mask_token": token if place == "special_tokens_map.json" else "[CLS]"}
        (folder / "special_tokens_map.json").write_text(json.dumps(names))
    ours, theirs = load_tokenizer(folder), BertTokenizer.from_pretrained(folder)
    same_in_all_places(ours, theirs)
    assert special_tokens(ours).mask == theirs.mask_token == "[MASK]"


def test_tokens_that_tokenizer_config_lists_by_id_are_whole(tmp_path):
    listed = {str(VOCABULARY.index(word)): {"content": word, "normalized": False} for word in ("است", "ایران")}
    folder = write_vocabulary(tmp_path, added_tokens_decoder=listed)
    ours = load_tokenizer(folder)
    assert ours.encode("aایرانb", add_special_tokens=False).tokens == ["a", "ایران", "b"]
    same_in_all_places(ours, BertTokenizer.from_pretrained(folder))


def test_token_listed_by_another_id_is_of_another_checkpoint(tmp_path):
    folder = write_vocabulary(tmp_path, added_tokens_decoder={"7": {"content": "[MASK]"}})
    with pytest.raises(WeightsError, match=r"'\[MASK\]' has id 4, tokenizer_config.json lists it as 7"):
        load_tokenizer(folder)


@pytest.mark.parametrize("listed", [["[MASK]"], {"4": "[MASK]"}, {"four": {"content": "[MASK]"}}, {"4": {}}, None, 3])
def test_list_of_tokens_by_id_that_is_none_is_refused(tmp_path, listed):
    with pytest.raises(WeightsError, match=r"tokenizer_config\.json: added_tokens_decoder is not a table"):
        load_tokenizer(write_vocabulary(tmp_path, added_tokens_decoder=listed))


def test_special_tokens_are_read_off_the_tokenizer(tmp_path):
    assert special_tokens(load_tokenizer(write_vocabulary(tmp_path))) == ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


@pytest.fixture
def json_folder(tmp_path):
    """A folder with a tokenizer.json and no vocab.txt, as HF writes it."""
    BertTokenizer.from_pretrained(write_vocabulary(tmp_path / "from")).save_pretrained(tmp_path / "json")
    (tmp_path / "json/config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": len(VOCABULARY)}))
    (tmp_path / "json/vocab.txt").unlink(missing_ok=True)
    return tmp_path / "json"


def test_ordinary_ids_are_all_but_the_special_ones(tmp_path):
    tokenizer = load_tokenizer(write_vocabulary(tmp_path))
    assert ordinary_ids(tokenizer) == list(range(len(SPECIALS), len(VOCABULARY)))


def test_tokenizer_json_matches_hf(json_folder):
    same_in_all_places(load_tokenizer(json_folder), AutoTokenizer.from_pretrained(json_folder))


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


EXPONENTIAL = {"Regex": "(x+x+)+y"}  # on 60 x's and no y the matcher gives up, by a panic in Rust


@pytest.mark.parametrize("length", [10**8, 10**12])
def test_tokenizer_json_that_pads_to_an_absurd_length_takes_no_memory(json_folder, length):
    padding = {"strategy": {"Fixed": length}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    rewrite_json(json_folder / "tokenizer.json", padding=padding)
    assert load_tokenizer(json_folder).encode("a").tokens == ["[CLS]", "a", "[SEP]"]


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Replace", "pattern": EXPONENTIAL, "content": ""}},
        {"pre_tokenizer": {"type": "Split", "pattern": EXPONENTIAL, "behavior": "Removed", "invert": False}},
    ],
)
def test_a_pattern_that_takes_for_ever_is_an_error_in_a_line(json_folder, part, capfd):
    rewrite_json(json_folder / "tokenizer.json", **part)
    tokenizer = load_tokenizer(json_folder)
    for texts in (["a", 60 * "x"], [("a", 60 * "x")]):
        with pytest.raises(WeightsError, match=r"^the tokenizer fails on a text \(.*retry-limit.*\); fetch"):
            encode_batch(tokenizer, texts)
    assert capfd.readouterr().err == ""
    assert encode_batch(tokenizer, ["a"])[0].tokens[0] == "[CLS]"


def test_tokenizer_json_that_deletes_all_text_is_refused(json_folder):
    everything = {"type": "Replace", "pattern": {"Regex": "[\\s\\S]"}, "content": ""}
    rewrite_json(json_folder / "tokenizer.json", normalizer=everything)
    with pytest.raises(WeightsError, match=r"tokenizer\.json: it makes nothing of a text"):
        load_tokenizer(json_folder)


def test_byte_pairs_without_merges_are_refused_unless_their_pieces_are_letters(json_folder):
    path = json_folder / "tokenizer.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    rewrite_json(path, model={"type": "BPE", "unk_token": "[UNK]", "vocab": vocabulary, "merges": []})
    with pytest.raises(WeightsError, match=r"tokenizer\.json: pieces of several letters, and no merges"):
        load_tokenizer(json_folder)
    letters = {piece: n for n, piece in enumerate([*SPECIALS, *"abcdefghijklmnopqrstuvwxyz"])}
    rewrite_json(path, model={"type": "BPE", "unk_token": "[UNK]", "vocab": letters, "merges": []}, added_tokens=[])
    rewrite_json(json_folder / "config.json", vocab_size=len(letters))
    assert load_tokenizer(json_folder).encode("ab").tokens[-3:-1] == ["a", "b"]


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_file_of_an_absurd_size_is_refused_unread(tmp_path, name):
    folder = write_vocabulary(tmp_path)
    with (folder / name).open("ab") as file:
        file.truncate(LARGEST_TEXT + 1)  # a hole: takes no room
    with pytest.raises(WeightsError, match=rf"{name}: 67,108,865 bytes, which no tokenizer has"):
        load_tokenizer(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_for_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(WeightsError, match=r"tokenizer\.json: not a regular file"):
        read_json(tmp_path / "tokenizer.json")


def test_a_closed_standard_error_is_not_taken_for_a_broken_tokenizer(json_folder):
    code = f"from weights import load_tokenizer; print(load_tokenizer({str(json_folder)!r}).encode('a').tokens)"
    command = f'exec "{sys.executable}" -c "{code}" 2>&-'
    done = subprocess.run(command, shell=True, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "['[CLS]', 'a', '[SEP]']\n")


def test_tokenizer_json_that_is_not_utf_8_is_refused(json_folder):
    (json_folder / "tokenizer.json").write_bytes(b'{"\xff"}')
    with pytest.raises(WeightsError, match="not UTF-8"):
        load_tokenizer(json_folder)


def test_folder_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no tokenizer\.json, and none of vocab\.txt, spiece\.model, vocab\.json, "):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("missing", SPECIALS)
def test_vocabulary_without_a_special_token_is_refused(tmp_path, missing):
    folder = write_vocabulary(tmp_path, [piece for piece in VOCABULARY if piece != missing])
    with pytest.raises(WeightsError, match="is not in it: the vocabulary is of another checkpoint"):
        load_tokenizer(folder)


def test_vocabulary_that_is_empty_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="the vocabulary is of another checkpoint"):
        load_tokenizer(write_vocabulary(tmp_path, []))


def test_tokenizer_json_beside_a_config_without_names_has_those_of_its_kind(tmp_path):
    """As bert-base-uncased has it: no padding in tokenizer.json, and no names in tokenizer_config.json."""
    folder = write_vocabulary(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "vocab.txt").unlink(missing_ok=True)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    rewrite_json(folder / "tokenizer.json", padding=None, post_processor=None)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')
    ours = load_tokenizer(folder)
    assert special_tokens(ours) == tuple(SPECIALS[place] for place in (2, 3, 0, 1, 4))
    same_in_all_places(ours, AutoTokenizer.from_pretrained(folder))
    rewrite_json(folder / "config.json", model_type="albert")
    with pytest.raises(WeightsError, match=r"has no '<pad>'; name what plays its part in tokenizer_config\.json"):
        load_tokenizer(folder)


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


def test_spiece_model_tokenizer_matches_hf_on_all_of_pquad(tmp_path, persian_spiece, pquad_texts):
    folder = write_spiece(tmp_path, persian_spiece)  # no tokenizer_config.json: ALBERT-fa has none
    same_in_bulk(load_tokenizer(folder), AutoTokenizer.from_pretrained(folder), pquad_texts)


def test_spiece_model_tokenizer_matches_hf_on_pquad_in_each_setting(tmp_path, persian_spiece, pquad_texts):
    for lower, accents, spaces, prefix in product([True, False], repeat=4):
        settings = {"do_lower_case": lower, "keep_accents": accents, "remove_space": spaces, "add_prefix_space": prefix}
        folder = write_spiece(tmp_path, persian_spiece, **settings)
        same_in_bulk(load_tokenizer(folder), AutoTokenizer.from_pretrained(folder), TEXTS + pquad_texts[::100])


def test_spiece_model_tokenizer_matches_hf_in_all_places(tmp_path, persian_spiece):
    folder = write_spiece(tmp_path, persian_spiece)
    same_in_all_places(load_tokenizer(folder), AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def spiece():
    """A spiece.model of a few dozen pieces, which needs no data."""
    return tiny_spiece()


def tiny_spiece(**settings):
    texts = [example.context + " " + example.question for example in examples()]
    return train_spiece(texts, **{"vocab_size": 80, "user_defined_symbols": []} | settings)


@pytest.mark.parametrize("kind", ["control_symbols", "user_defined_symbols"])
@pytest.mark.parametrize("strips", [None, True, False])
def test_spiece_model_mask_matches_hf(tmp_path, kind, strips):
    model = tiny_spiece(**{"control_symbols": [], kind: ["[MASK]"]})
    token = {"content": "[MASK]", "lstrip": strips, "rstrip": False, "normalized": False, "special": True}
    folder = write_spiece(tmp_path, model, **({} if strips is None else {"added_tokens_decoder": {"4": token}}))
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    same_in_all_places(ours, theirs)
    assert ours.encode("شهر [MASK]", add_special_tokens=False).offsets[-1] == (3 if strips else 4, 10)
    assert special_tokens(ours).mask == theirs.mask_token == "[MASK]"


def test_spiece_model_says_itself_how_its_control_pieces_are_found(tmp_path, spiece):
    folder = write_spiece(tmp_path, spiece)
    names = {"mask_token": {"content": "[MASK]", "lstrip": True}, "unk_token": {"content": "<unk>", "lstrip": True}}
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    ours = load_tokenizer(folder)
    same_in_all_places(ours, AutoTokenizer.from_pretrained(folder))
    found = ours.encode("a [MASK] a <unk>", add_special_tokens=False).offsets
    assert (2, 8) in found
    assert (10, 16) in found  # neither control nor user-defined, so it takes the space before it along


def test_spiece_model_with_special_tokens_of_other_names(tmp_path):
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    pieces = {"bos_piece": "<s>", "eos_piece": "</s>", "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
    folder = write_spiece(tmp_path, tiny_spiece(**pieces), **names)
    tokenizer = load_tokenizer(folder)
    assert special_tokens(tokenizer) == ("<s>", "</s>", "[PAD]", "[UNK]", "[MASK]")
    encoding = tokenizer.encode("شهر", "中")
    assert (encoding.ids[0], encoding.ids[-3:]) == (2, [tokenizer.token_to_id("\u2581"), 1, 3])


def test_spiece_model_has_its_own_unknown_piece(tmp_path):
    folder = write_spiece(tmp_path, tiny_spiece(pad_id=1, unk_id=0))
    tokenizer = load_tokenizer(folder)
    assert special_tokens(tokenizer) == ("[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]")
    assert tokenizer.encode("中", add_special_tokens=False).ids[-1] == 0
    assert tokenizer.padding["pad_id"] == 1


def test_spiece_model_tokenizer_is_saved_as_hf_reads_it(tmp_path, persian_spiece):
    model = Albert(AlbertConfig(vocabulary=4000, embedding_width=4, width=8, layers=1, heads=1, ffn_width=8))
    for lower, accents in product([True, False], repeat=2):
        folder = write_spiece(tmp_path / "from", persian_spiece, do_lower_case=lower, keep_accents=accents)
        ours = load_tokenizer(folder)
        save_pretrained(model, tmp_path / "saved", ours)
        theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
        same_in_all_places(ours, theirs)
        same_in_all_places(load_tokenizer(tmp_path / "saved"), theirs)
        special = (theirs.cls_token, theirs.sep_token, theirs.pad_token, theirs.unk_token, theirs.mask_token)
        assert special == special_tokens(ours) == ("[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]")


@pytest.mark.parametrize(("model_type", "hf"), [("albert", AlbertTokenizer), ("bert", BertTokenizer)])
def test_model_type_decides_between_vocab_txt_and_spiece_model(tmp_path, spiece, model_type, hf):
    write_vocabulary(tmp_path)
    write_spiece(tmp_path, spiece)
    (tmp_path / "tokenizer_config.json").unlink()
    rewrite_json(tmp_path / "config.json", model_type=model_type)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs) is hf
    same_in_all_places(load_tokenizer(tmp_path), theirs)


@pytest.mark.parametrize("model_type", ["albert", "bert"])
def test_tokenizer_file_that_is_alone_is_read_for_any_model(tmp_path, spiece, model_type):
    for folder in (write_spiece(tmp_path / "spiece", spiece), write_vocabulary(tmp_path / "vocabulary")):
        rewrite_json(folder / "config.json", model_type=model_type)
        assert load_tokenizer(folder).encode("").tokens == ["[CLS]", "[SEP]"]


def test_tokenizer_json_wins_over_spiece_model(json_folder):
    write_spiece(json_folder, b"nothing")
    assert load_tokenizer(json_folder).get_vocab_size() == len(VOCABULARY)


def test_spiece_model_of_a_larger_vocabulary_is_of_another_checkpoint(tmp_path, spiece):
    folder = write_spiece(tmp_path, spiece)
    size = load_tokenizer(folder).get_vocab_size()
    rewrite_json(folder / "config.json", vocab_size=size)
    assert load_tokenizer(folder).get_vocab_size() == size
    rewrite_json(folder / "config.json", vocab_size=size - 1)
    with pytest.raises(WeightsError, match=rf"ids up to {size - 1}, config\.json's vocab_size is {size - 1}"):
        load_tokenizer(folder)


@pytest.mark.parametrize("part", ["cls", "sep", "pad", "unk", "mask"])
def test_spiece_model_without_a_special_token_is_refused(tmp_path, spiece, part):
    with pytest.raises(WeightsError, match=rf"spiece\.model: {part}_token '<x>' is not in it"):
        load_tokenizer(write_spiece(tmp_path, spiece, **{f"{part}_token": "<x>"}))


@pytest.mark.parametrize("key", ["do_lower_case", "keep_accents", "add_prefix_space"])
def test_spiece_model_with_a_setting_of_the_wrong_type_is_refused(tmp_path, spiece, key):
    with pytest.raises(WeightsError, match=rf"tokenizer_config\.json: {key} is 'yes'"):
        load_tokenizer(write_spiece(tmp_path, spiece, **{key: "yes"}))
