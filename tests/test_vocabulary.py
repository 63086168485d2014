"""The vocabulary files of RoBERTa and its kin, against transformers' tokenizers on the same files.

BERT's and ALBERT's are in test_tokenizer.py.
"""

import json
import random
from itertools import product

import pytest
from tokenizers import Tokenizer, processors
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    CamembertTokenizer,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from minitransformer.roberta import Roberta, RobertaConfig
from minitransformer.system.errors import WeightsError
from qa import squad
from qa.features import featurise, pair_template
from tiny import (
    ROBERTA_SPECIALS,
    TEXTS,
    contexts,
    examples,
    odd_texts,
    rewrite_json,
    same,
    same_in_all_places,
    same_in_bulk,
    train_fairseq,
    write_byte_pairs,
    write_fairseq,
    write_vocabulary,
)
from weights import save_pretrained
from weights.tokenizer import load_tokenizer, ordinary_ids, special_tokens

MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
CLASSES = {"roberta": RobertaTokenizer, "xlm-roberta": XLMRobertaTokenizer, "camembert": CamembertTokenizer}


@pytest.fixture(scope="module")
def few_texts():
    return [f"{example.context} {example.question} The cat's hat, 12 of 34." for example in examples()]


@pytest.fixture(scope="module", params=CLASSES)
def folder_of(request, tmp_path_factory, few_texts):
    """folder_of(**settings) -> a folder with a small vocabulary, and settings in tokenizer_config.json."""
    home = tmp_path_factory.mktemp(request.param)
    if request.param == "roberta":
        write_byte_pairs(home, few_texts)
    else:
        write_fairseq(home, train_fairseq(few_texts, vocab_size=90), request.param)

    def of(**settings):
        (home / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return home

    of.model_type = request.param
    return of


def theirs_of(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is CLASSES[json.loads((folder / "config.json").read_text())["model_type"]]
    return tokenizer


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("trim", [True, False])
def test_tokenizer_matches_hf_in_all_places(folder_of, prefix, trim):
    folder = folder_of(add_prefix_space=prefix, trim_offsets=trim)
    same_in_all_places(load_tokenizer(folder), theirs_of(folder))


def test_vocabulary_alone_is_read_as_hf_reads_it(folder_of):
    folder = folder_of()
    (folder / "tokenizer_config.json").unlink()
    ours, theirs = load_tokenizer(folder), theirs_of(folder)
    same_in_all_places(ours, theirs)
    same_in_bulk(ours, theirs, odd_texts())


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_mask_that_is_written_out_matches_hf(folder_of, flag, value, listed):
    mask = MASK | {flag: value}
    folder = folder_of()
    number = load_tokenizer(folder).token_to_id("<mask>")
    in_list = {"added_tokens_decoder": {number: mask | {"special": True}}}
    folder_of(**in_list if listed else {"mask_token": mask | {"__type": "AddedToken"}})
    ours, theirs = load_tokenizer(folder), theirs_of(folder)
    for text in ("شهر <mask> است", "شهر<mask>است", "<mask>", " <mask> "):
        same(ours, theirs, text)
    assert special_tokens(ours).mask == theirs.mask_token == "<mask>"


def test_special_tokens_and_their_ids_are_the_familys(folder_of):
    ours = load_tokenizer(folder_of())
    special = special_tokens(ours)
    unknown = None if folder_of.model_type == "roberta" else "<unk>"  # bytes are always known
    assert special == ("<s>", "</s>", "<pad>", unknown, "<mask>")
    last = ours.get_vocab_size() - 1
    ids = {"roberta": [0, 1, 2, 3, 4], "xlm-roberta": [0, 1, 2, 3, last], "camembert": [5, 1, 6, 3, last]}
    assert [ours.token_to_id(token) for token in ROBERTA_SPECIALS] == ids[folder_of.model_type]
    assert set(ids[folder_of.model_type]) == set(range(last + 1)) - set(ordinary_ids(ours))
    assert ours.padding["pad_id"] == 1


def test_pair_has_two_separators_and_one_segment(folder_of):
    tokenizer = load_tokenizer(folder_of())
    pair = tokenizer.encode("شهر", "شهر")
    text = tokenizer.encode("شهر", add_special_tokens=False).tokens
    assert pair.tokens == ["<s>", *text, "</s>", "</s>", *text, "</s>"]
    assert not any(pair.type_ids)
    template = pair_template(tokenizer)
    assert (template.before.shape, template.between.shape, template.after.shape) == ((2, 1), (2, 2), (2, 1))
    assert template.question_type == template.context_type == 0


def test_features_are_what_hf_makes_of_the_pair(folder_of):
    folder = folder_of()
    ours, theirs = load_tokenizer(folder), theirs_of(folder)
    asked = examples()
    for feature in featurise(asked, ours, max_length=512):
        example = asked[feature.example]
        pair = theirs(example.question.lstrip(), example.context, return_offsets_mapping=True)
        assert feature.input_ids.tolist() == pair["input_ids"]
        assert feature.token_type_ids.tolist() == [0] * len(pair["input_ids"])
        own = slice(feature.context_start, feature.context_start + len(feature.offsets))
        assert [tuple(offset) for offset in feature.offsets.tolist()] == pair["offset_mapping"][own]
        if example.answers:
            begin, end = (int(feature.offsets[place - own.start][side]) for side, place in enumerate(feature[-2:]))
            assert example.context[begin:end] == example.answers[0].text


@pytest.mark.parametrize("public", [True, False], ids=["as the public ones", "as transformers 5"])
def test_tokenizer_json_matches_hf(tmp_path, folder_of, public):
    theirs_of(folder_of()).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": folder_of.model_type}))
    if public:
        make_public(tmp_path, folder_of.model_type)
    ours, again = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    special = special_tokens(ours)
    assert (special.cls, special.sep, special.pad, special.mask) == ("<s>", "</s>", "<pad>", "<mask>")
    assert not any(ours.encode("a", "b").type_ids)
    same_in_all_places(ours, again)
    same_in_bulk(ours, again, odd_texts())


def make_public(folder, model_type):
    """In the public files the mask takes the spaces before it along, CamemBERT's unused tokens are special, and
    tokenizer_config.json says next to nothing."""
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    path = folder / "tokenizer.json"
    tokens = json.loads(path.read_text(encoding="utf-8"))["added_tokens"]
    tokens = [token | {"lstrip": token["content"] == "<mask>"} for token in tokens]
    if model_type == "camembert":
        unused = {0: "<s>NOTUSED", 2: "</s>NOTUSED", 4: "<unk>NOTUSED"}
        tokens += [tokens[0] | {"id": number, "content": text} for number, text in unused.items()]
    rewrite_json(path, added_tokens=sorted(tokens, key=lambda token: token["id"]))


def test_tokenizer_json_without_a_template_gets_the_familys(tmp_path, folder_of):
    theirs = theirs_of(folder_of())
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": folder_of.model_type}))
    rewrite_json(tmp_path / "tokenizer.json", post_processor=None)
    (tmp_path / "tokenizer_config.json").unlink()
    same_in_all_places(load_tokenizer(tmp_path), theirs)


def test_tokenizer_json_that_only_trims_gets_the_template_too(tmp_path, few_texts):
    folder = write_byte_pairs(tmp_path, few_texts)
    theirs = theirs_of(folder)
    whole = load_tokenizer(folder)
    whole.post_processor = processors.ByteLevel(trim_offsets=False)  # as `tokenizers` saves what it has trained
    whole.no_padding()
    whole.save(str(folder / "tokenizer.json"))
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a", "b").tokens == ["a", "b"]
    same_in_all_places(load_tokenizer(folder), theirs)


def test_tokenizer_is_saved_as_hf_reads_it(tmp_path, folder_of):
    ours = load_tokenizer(folder_of())
    size = ours.get_vocab_size()
    config = RobertaConfig(folder_of.model_type, size, 8, layers=1, heads=1, ffn_width=8, position_rows=34, segments=1)
    save_pretrained(Roberta(config), tmp_path, ours)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    same_in_all_places(ours, theirs)
    same_in_all_places(load_tokenizer(tmp_path), theirs)
    special = (theirs.cls_token, theirs.sep_token, theirs.pad_token, theirs.unk_token, theirs.mask_token)
    assert special == special_tokens(ours)
    assert theirs.model_max_length == 32
    assert theirs.model_input_names == ["input_ids", "attention_mask"]


def test_tokenizer_of_more_ids_than_the_model_has_is_of_another_checkpoint(folder_of):
    folder = folder_of()
    last = load_tokenizer(folder).get_vocab_size() - 1
    rewrite_json(folder / "config.json", vocab_size=last)
    with pytest.raises(WeightsError, match=rf"ids up to {last}, config\.json's vocab_size is {last}"):
        load_tokenizer(folder)
    rewrite_json(folder / "config.json", vocab_size=...)


@pytest.mark.parametrize("part", ["cls", "sep", "pad", "unk", "mask"])
def test_token_that_the_vocabulary_lacks_is_named(folder_of, part):
    given = {"roberta": (), "xlm-roberta": ("cls", "sep", "pad", "unk", "mask"), "camembert": ("pad", "unk", "mask")}
    folder = folder_of(**{f"{part}_token": "<x>"})
    if part in given[folder_of.model_type]:  # fairseq has a place for it, whatever its name
        assert getattr(special_tokens(load_tokenizer(folder)), part) == "<x>"
        same_in_all_places(load_tokenizer(folder), theirs_of(folder))
    else:
        with pytest.raises(WeightsError, match=rf"{part}_token '<x>' is not in it"):
            load_tokenizer(folder)


# ------------------------------------------------------------------------------------------------- in bulk


@pytest.fixture(scope="module")
def pquad(assets):
    """(texts to learn a vocabulary from, every context and question of both files)"""
    paths = [assets / f"data/pquad/{part}.json.gz" for part in ("Test", "Validation")]
    passages = [text for path in paths for text in contexts(path)]
    questions = [example.question for path in paths for example in squad.read(path)]
    return passages[:500], list(dict.fromkeys(passages + questions))


def test_byte_pairs_match_hf_on_all_of_pquad(tmp_path, pquad):
    folder = write_byte_pairs(tmp_path, pquad[0], vocabulary=3000)
    same_in_bulk(load_tokenizer(folder), theirs_of(folder), pquad[1] + odd_texts())


@pytest.mark.parametrize(("model_type", "rule"), [("xlm-roberta", "nmt_nfkc"), ("camembert", "identity")])
def test_fairseqs_unigram_matches_hf_on_all_of_pquad(tmp_path, pquad, model_type, rule):
    model = train_fairseq(pquad[0], vocab_size=4000, normalization_rule_name=rule)
    folder = write_fairseq(tmp_path, model, model_type)
    same_in_bulk(load_tokenizer(folder), theirs_of(folder), pquad[1] + odd_texts())


# ------------------------------------------------------------------------------------- which file, by model


@pytest.mark.parametrize("model_type", ["distilbert", "electra"])
@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}, {"strip_accents": False}])
def test_distilbert_and_electra_read_vocab_txt_as_bert_does(tmp_path, model_type, settings):
    folder = write_vocabulary(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    rewrite_json(folder / "config.json", model_type=model_type)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert type(theirs) is BertTokenizer
    same_in_all_places(load_tokenizer(folder), theirs)


@pytest.mark.parametrize("model_type", [*CLASSES, "bert"])
def test_model_type_decides_between_the_files(tmp_path, few_texts, model_type):
    write_vocabulary(tmp_path)
    write_byte_pairs(tmp_path, few_texts)
    write_fairseq(tmp_path, train_fairseq(few_texts, vocab_size=90), model_type)
    (tmp_path / "tokenizer_config.json").unlink()
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs) is CLASSES.get(model_type, BertTokenizer)
    same_in_all_places(load_tokenizer(tmp_path), theirs)


@pytest.mark.parametrize("model_type", [*CLASSES, "bert", "albert", None, ["bert"]])
def test_file_that_is_alone_is_read_for_any_model(tmp_path, few_texts, model_type):
    folder = write_byte_pairs(tmp_path / "bytes", few_texts)
    rewrite_json(folder / "config.json", model_type=model_type)
    assert load_tokenizer(folder).encode("", "").tokens == ["<s>", "</s>", "</s>", "</s>"]
    folder = write_fairseq(tmp_path / "unigram", train_fairseq(few_texts, vocab_size=90), model_type)
    assert load_tokenizer(folder).encode("", "").tokens == ["<s>", "</s>", "</s>", "</s>"]
    rewrite_json(write_vocabulary(tmp_path / "words") / "config.json", model_type=model_type)
    assert load_tokenizer(tmp_path / "words").encode("", "").type_ids == [0, 0, 1]


# ------------------------------------------------------------------------------------------------- refused


@pytest.fixture
def byte_folder(tmp_path, few_texts):
    return write_byte_pairs(tmp_path, few_texts)


def test_merges_with_windows_line_ends_are_the_same(byte_folder):
    before = load_tokenizer(byte_folder).to_str()
    path = byte_folder / "merges.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_tokenizer(byte_folder).to_str() == before
    same_in_all_places(load_tokenizer(byte_folder), theirs_of(byte_folder))


@pytest.mark.parametrize(
    "line", ["a", "a b c", "qqq zzz", "a  b", " ", "Ġ\ta", "<!DOCTYPE html>", "a zz", "\u00d8 \u00d8\u00d8\u00d8"]
)
def test_merge_of_what_is_no_piece_is_refused(byte_folder, line):
    path = byte_folder / "merges.txt"
    path.write_text(f"#version: 0.2\n{line}\n", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"merges\.txt: line 2: .* joins no two pieces of vocab\.json: fetch both"):
        load_tokenizer(byte_folder)


def test_vocab_json_without_merges_is_refused(byte_folder):
    (byte_folder / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"merges\.txt: No such file"):
        load_tokenizer(byte_folder)


@pytest.mark.parametrize("number", [1, -1, 2**31, 10**30, 1.0, True, None, "7", [7]])
def test_vocab_json_that_does_not_number_its_pieces_is_refused(byte_folder, number):
    rewrite_json(byte_folder / "vocab.json", a=number)
    with pytest.raises(WeightsError, match=r"vocab\.json: not a table of pieces with a number each"):
        load_tokenizer(byte_folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", 5000 * "["])
def test_vocab_json_that_is_not_json_is_refused(byte_folder, text):
    (byte_folder / "vocab.json").write_text(text)
    with pytest.raises(WeightsError, match=r"vocab\.json: not (JSON|a JSON object)"):
        load_tokenizer(byte_folder)


@pytest.mark.parametrize("key", ["add_prefix_space", "trim_offsets"])
def test_setting_of_the_wrong_type_is_refused(byte_folder, key):
    (byte_folder / "tokenizer_config.json").write_text(json.dumps({key: "yes"}))
    with pytest.raises(WeightsError, match=rf"tokenizer_config\.json: {key} is 'yes'"):
        load_tokenizer(byte_folder)


@pytest.mark.parametrize(
    "pieces",
    [
        {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3},  # as ALBERT's
        {"unk_id": 2, "bos_id": 0, "eos_id": 1},
        {"eos_id": -1},
    ],
)
def test_pieces_in_another_order_are_of_another_model(tmp_path, few_texts, pieces):
    folder = write_fairseq(tmp_path, train_fairseq(few_texts, vocab_size=90, **pieces), "xlm-roberta")
    with pytest.raises(WeightsError, match=r"it does not begin with <unk>, <s> and </s>: the file is of another model"):
        load_tokenizer(folder)


def test_random_damage_to_the_byte_pairs_is_refused_or_harmless(byte_folder):
    luck, outcomes = random.Random(0), {"refused": 0, "harmless": 0}
    whole = {name: (byte_folder / name).read_bytes() for name in ("vocab.json", "merges.txt")}
    for _ in range(400):
        damaged = {name: bytearray(data) for name, data in whole.items()}
        chosen = luck.choice(list(damaged.values()))
        chosen[luck.randrange(len(chosen))] ^= 1 << luck.randrange(8)
        for name, data in damaged.items():
            (byte_folder / name).write_bytes(data)
        try:
            tokenizer = load_tokenizer(byte_folder)
        except WeightsError as refusal:
            outcomes["refused"] += 1
            assert "\n" not in str(refusal)
        else:
            outcomes["harmless"] += 1
            for text, encoding in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
                assert all(0 <= start <= end <= len(text) for start, end in encoding.offsets)
    assert min(outcomes.values()) > 5, outcomes


def test_settings_of_other_families_change_nothing(folder_of):
    before = load_tokenizer(folder_of()).to_str()
    for lower, accents in product([True, False], repeat=2):
        assert load_tokenizer(folder_of(do_lower_case=lower, keep_accents=accents)).to_str() == before
