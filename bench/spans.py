"""Seconds from logits to answers: ours against the n-best double loop in Python that HF's example uses.

python -m bench.spans --weights DIR --data FILE

Logits are random, the same in every run, over the real features of all questions: a peak at some place of the context,
as a trained model has, on noise. Both sides give, for every question, the answer, its n best candidates with their
probabilities, and how sure "no answer" is, in the shapes of SQuAD's files; "the answer alone" is ours with one. Ours
gets logits in batches as a model leaves them, the loop gets them as HF's Trainer does, in one array with -100 at
padding. HF's example runs it over a `datasets` table, a row of which is decoded for every feature: that row of
the report needs the package (pip install datasets). The other one has plain lists. Neither has a progress bar.

Before the table is printed, both sides' answers are compared. They may differ for two reasons: the loop pairs the n
highest starts with the n highest ends only, so it can miss the best span, and it takes a span of white space alone for
an answer, which ours never does. Where neither happens the texts must be equal, but for blank edges, which ours cuts.
"""

import gc
import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.common import RACE_HEAD, machine, race, table
from minitransformer.system.errors import DataError, command_line
from minitransformer.system.flags import FlagParser
from qa import squad
from qa.features import Feature, batches_by_tokens, collate, featurise
from qa.spans import EDGES, OfficialFiles, best_spans, in_feature_order, official_files, predictions
from qa.squad import Example
from weights import load_tokenizer

SEED = 0
PEAK, WIDTH = 8.0, 3.0  # height of the logit at the answer's ends, and the tokens over which it falls to 1 / e
ROUNDING = 1e-4  # of scores, which are summed in float32
LONGEST = (30, 64)  # tokens of an answer: HF's default, and that of recipes/modern.toml


class Batch(NamedTuple):
    """A batch as a model leaves it."""

    start: Tensor  # (B, T)
    end: Tensor  # (B, T)
    context_mask: Tensor  # (B, T)


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m bench.spans", description=__doc__)
    parser.add_argument("--weights", required=True, metavar="DIR", help="checkpoint folder with the tokenizer")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--n-best", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    examples = squad.read(args.data)
    features = featurise(examples, load_tokenizer(args.weights), max_length=512, stride=128)
    logits = random_logits(features)
    order = batches_by_tokens(features, 8192)
    batches = [as_batch([features[i] for i in indices], [logits[i] for i in indices]) for indices in order]
    lists = [{"offset_mapping": hf_offsets(feature)} for feature in features]
    table_rows = table_of(features) if importlib.util.find_spec("datasets") else None
    padded = pad(logits)

    def ours(longest: int, n_best: int) -> OfficialFiles:
        spans = in_feature_order([best_spans(*batch, longest, n_best) for batch in batches], order)
        return official_files(predictions(examples, features, spans))

    def hf(longest: int, rows: Sequence[dict[str, Any]]) -> OfficialFiles:
        return postprocess_qa_predictions(examples, features, rows, padded, args.n_best, longest)

    gc.freeze()  # else Python's garbage collector searches the millions of offsets of `lists` in everybody's time

    rows = []
    for longest in LONGEST:
        difference = compare(ours(longest, args.n_best), hf(longest, lists))  # and a warm-up of both
        loop = f"HF's loop, {args.n_best} best spans of up to {longest} tokens"
        contenders = {f"{loop}, on a datasets table": partial(hf, longest, table_rows)} if table_rows else {}
        contenders |= {
            f"{loop}, on lists": partial(hf, longest, lists),
            f"ours, {args.n_best} best spans of up to {longest} tokens": partial(ours, longest, args.n_best),
            f"ours, the answer alone, up to {longest} tokens": partial(ours, longest, 1),
        }
        rows += race(contenders, args.rounds)
        print(f"answers of up to {longest} tokens: {difference}")
    print(f"\n{table(RACE_HEAD, *rows)}\n\n{len(examples):,} questions; {machine()}")


def random_logits(features: Sequence[Feature]) -> list[np.ndarray]:
    """Start and end logits of every feature, (2, T) float32."""
    random = np.random.default_rng(SEED)
    logits = []
    for feature in features:
        place = np.arange(len(feature.input_ids))
        peak = feature.context_start + random.integers(max(1, len(feature.offsets)))
        bump = PEAK * np.exp(-abs(place - peak) / WIDTH)
        logits.append((random.standard_normal((2, len(place))) + bump).astype(np.float32))
    return logits


def pad(logits: Sequence[np.ndarray]) -> np.ndarray:
    """(2, F, T) with -100 at padding."""
    padded = np.full((2, len(logits), max(row.shape[1] for row in logits)), -100, dtype=np.float32)
    for index, row in enumerate(logits):
        padded[:, index, : row.shape[1]] = row
    return padded


def as_batch(features: Sequence[Feature], logits: Sequence[np.ndarray]) -> Batch:
    start, end = torch.from_numpy(pad(logits))
    return Batch(start, end, collate(features, pad_id=0).context_mask)


def compare(ours: OfficialFiles, theirs: OfficialFiles) -> str:
    """In what the answers differ, in words. DataError when one differs for another reason than the two known."""
    missed = blank = 0
    for id, answer in ours.predictions.items():
        best = next(candidate["text"] for candidate in theirs.nbest[id] if candidate["text"])
        # The null score is the same for both, so the higher odds of "no answer" belong to the worse span.
        behind = theirs.null_odds[id] - ours.null_odds[id]
        if not best.strip(EDGES):
            blank += 1
        elif behind > ROUNDING:
            missed += 1
        elif behind < -ROUNDING or answer != theirs.predictions[id].strip(EDGES):
            raise DataError(f"question {id}: {answer!r} is the answer of ours, {theirs.predictions[id]!r} the loop's")
    return f"{missed:,} best spans that the loop missed, {blank:,} that are blank; the other answers are equal"


def hf_offsets(feature: Feature) -> list[tuple[int, int] | None]:
    """HF's offset_mapping: None at every token that is not of the context."""
    after = len(feature.input_ids) - feature.context_start - len(feature.offsets)
    return [None] * feature.context_start + [tuple(pair) for pair in feature.offsets.tolist()] + [None] * after


def table_of(features: Sequence[Feature]) -> Sequence[dict[str, Any]]:
    """The features as HF's example holds them, with all columns that it keeps."""
    import datasets

    return datasets.Dataset.from_dict(
        {
            "input_ids": [feature.input_ids.tolist() for feature in features],
            "token_type_ids": [feature.token_type_ids.tolist() for feature in features],
            "attention_mask": [[1] * len(feature.input_ids) for feature in features],
            "offset_mapping": [hf_offsets(feature) for feature in features],
            "example_id": [str(feature.example) for feature in features],
        }
    )


def postprocess_qa_predictions(
    examples: Sequence[Example],
    features: Sequence[Feature],
    rows: Sequence[dict[str, Any]],
    all_logits: np.ndarray,
    n_best_size: int,
    max_answer_length: int,
) -> OfficialFiles:
    """The steps of utils_qa.py's function of this name, version_2_with_negative, threshold 0."""
    features_per_example: list[list[int]] = [[] for _ in examples]
    for index, feature in enumerate(features):
        features_per_example[feature.example].append(index)

    all_predictions, all_nbest, scores_diff = {}, {}, {}
    for example, indices in zip(examples, features_per_example, strict=True):
        null = None
        found = []
        for index in indices:
            start_logits, end_logits = all_logits[:, index]
            offsets = rows[index]["offset_mapping"]
            rows[index].get("token_is_max_context")  # decoded once more, to find that there is none
            null_score = start_logits[0] + end_logits[0]
            if null is None or null["score"] > null_score:
                null = {
                    "offsets": (0, 0),
                    "score": null_score,
                    "start_logit": start_logits[0],
                    "end_logit": end_logits[0],
                }
            starts = np.argsort(start_logits)[-1 : -n_best_size - 1 : -1].tolist()
            ends = np.argsort(end_logits)[-1 : -n_best_size - 1 : -1].tolist()
            for start in starts:
                for end in ends:
                    if start >= len(offsets) or end >= len(offsets) or offsets[start] is None or offsets[end] is None:
                        continue
                    if end < start or end - start + 1 > max_answer_length:
                        continue
                    found.append(
                        {
                            "offsets": (offsets[start][0], offsets[end][1]),
                            "score": start_logits[start] + end_logits[end],
                            "start_logit": start_logits[start],
                            "end_logit": end_logits[end],
                        }
                    )
        found.append(null)
        best = sorted(found, key=lambda candidate: candidate["score"], reverse=True)[:n_best_size]
        if not any(candidate["offsets"] == (0, 0) for candidate in best):
            best.append(null)
        for candidate in best:
            first, last = candidate.pop("offsets")
            candidate["text"] = example.context[first:last]
        if len(best) == 1 and best[0]["text"] == "":
            best.insert(0, {"text": "empty", "start_logit": 0.0, "end_logit": 0.0, "score": 0.0})

        scores = np.array([candidate.pop("score") for candidate in best])
        exponentials = np.exp(scores - np.max(scores))
        for candidate, probability in zip(best, exponentials / exponentials.sum(), strict=True):
            candidate["probability"] = probability

        answer = next(candidate for candidate in best if candidate["text"] != "")
        odds = null["start_logit"] + null["end_logit"] - answer["start_logit"] - answer["end_logit"]
        scores_diff[example.id] = float(odds)
        all_predictions[example.id] = "" if odds > 0 else answer["text"]
        all_nbest[example.id] = [
            {key: float(value) if isinstance(value, np.floating) else value for key, value in candidate.items()}
            for candidate in best
        ]
    return OfficialFiles(all_predictions, all_nbest, scores_diff)


if __name__ == "__main__":
    main()
