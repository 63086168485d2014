"""Seconds to make features of all questions: ours against HF's fast tokenizer, used as HF's run_qa.py uses it.

python -m bench.features --weights DIR --data FILE

HF's side is what its question answering example does to prepare training: questions and contexts go to the tokenizer
in pairs, a thousand at a time, it cuts the windows (return_overflowing_tokens), and a Python loop finds the labels.
Neither side pads. Both use all cores. The features of both are compared before the table is printed.
"""

from collections.abc import Iterator, Mapping, Sequence

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench.common import RACE_HEAD, machine, race, table
from minitransformer.system.errors import DataError, command_line
from minitransformer.system.flags import FlagParser
from qa import squad
from qa.features import Feature, featurise
from qa.squad import Example
from weights import load_tokenizer
from weights.find import find_folder

MAP_BATCH = 1000  # what datasets.map hands over at a time unless told otherwise


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m bench.features", description=__doc__)
    parser.add_argument("--weights", required=True, metavar="DIR", help="checkpoint folder with the tokenizer")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--stride", type=int, default=128, help="tokens that windows share (128)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    examples = squad.read(args.data)
    columns = list(hf_columns(examples))
    tokenizer, hf_tokenizer = load_tokenizer(args.weights), AutoTokenizer.from_pretrained(find_folder(args.weights))

    def ours() -> list[Feature]:
        return featurise(examples, tokenizer, args.max_length, args.stride)

    def hf() -> list[dict[str, list]]:
        return [prepare_train_features(batch, hf_tokenizer, args.max_length, args.stride) for batch in columns]

    check_equal(ours(), hf())  # and a warm-up of both
    print(table(RACE_HEAD, *race({"HF's example": hf, "ours": ours}, args.rounds)))
    print(f"\n{len(examples):,} questions, max_length {args.max_length}, stride {args.stride}, all features equal; "
          f"{machine()}")  # fmt: skip


def check_equal(ours: Sequence[Feature], batches: Sequence[Mapping[str, list]]) -> None:
    """DataError at the first feature whose ids, types or labels differ: then the seconds compare different work."""
    names = ("input_ids", "token_type_ids", "start_positions", "end_positions")
    theirs = [feature for batch in batches for feature in zip(*(batch[name] for name in names), strict=True)]
    if len(ours) != len(theirs):
        raise DataError(f"{len(ours)} features of ours, {len(theirs)} of HF's example: they cannot be compared")
    for number, (feature, hf_feature) in enumerate(zip(ours, theirs, strict=True)):
        our_feature = (feature.input_ids.tolist(), feature.token_type_ids.tolist(), feature.start, feature.end)
        for name, a, b in zip(names, our_feature, hf_feature, strict=True):
            if a != b:
                raise DataError(f"feature {number}: {name} is {a} in ours, {b} in HF's example")


def hf_columns(examples: Sequence[Example]) -> Iterator[dict[str, list]]:
    """The examples as `datasets` would hand them to a batched map."""
    for first in range(0, len(examples), MAP_BATCH):
        batch = examples[first : first + MAP_BATCH]
        yield {
            "question": [example.question for example in batch],
            "context": [example.context for example in batch],
            "answers": [
                {"text": [a.text for a in example.answers], "answer_start": [a.start for a in example.answers]}
                for example in batch
            ],
        }


def prepare_train_features(
    examples: dict[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> dict[str, list]:
    """The steps of run_qa.py's function of this name, for a tokenizer that pads on the right."""
    questions = [question.lstrip() for question in examples["question"]]
    tokenized = tokenizer(
        questions,
        examples["context"],
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=False,
    )
    samples = tokenized.pop("overflow_to_sample_mapping")
    starts, ends = [], []
    for index, offsets in enumerate(tokenized.pop("offset_mapping")):
        input_ids = tokenized["input_ids"][index]
        cls = input_ids.index(tokenizer.cls_token_id)
        sequence_ids = tokenized.sequence_ids(index)
        answers = examples["answers"][samples[index]]
        if not answers["answer_start"]:
            starts.append(cls)
            ends.append(cls)
            continue

        begin = answers["answer_start"][0]
        end = begin + len(answers["text"][0])
        first = 0  # of the window's tokens
        while sequence_ids[first] != 1:
            first += 1
        last = len(input_ids) - 1
        while sequence_ids[last] != 1:
            last -= 1
        if not (offsets[first][0] <= begin and offsets[last][1] >= end):
            starts.append(cls)
            ends.append(cls)
            continue

        while first < len(offsets) and offsets[first][0] <= begin:
            first += 1
        starts.append(first - 1)
        while offsets[last][1] >= end:
            last -= 1
        ends.append(last + 1)
    tokenized["start_positions"], tokenized["end_positions"] = starts, ends
    return tokenized


if __name__ == "__main__":
    main()
