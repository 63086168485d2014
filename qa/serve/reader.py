"""What the page asks of the model: an answer, the tokens of a window with their scores, a head's attention."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minitransformer.attention_weights import attention_weights
from minitransformer.system.errors import DataError
from qa.answerer import Answerer, to_answer, to_example
from qa.ask import NEXT_BEST
from qa.features import Batch, Feature, batches_by_tokens, collate, pair_template
from qa.serve.turns import Turns
from qa.spans import in_feature_order, predictions

MOST_TOKENS = 32_768  # of all windows of a request, about 80,000 characters of Persian: seconds on two cores


class TooLongError(DataError):
    """A passage that would keep the model busy for too long."""


class Reader:
    """A model and its tokenizer, taken in turns, and the attention weights of the window asked for last.

    check, in each method: called before each turn; what it raises ends the request.
    """

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self.turns = Turns()
        self.weights: tuple[tuple[str, str, int], Tensor] | None = None  # what they are of, (L, H, T, T)

    def answer(self, check: Callable[[], None], passage: str, question: str) -> dict[str, Any]:
        """The answer and its rivals, where it begins (in code points), and the window with the best span."""
        example = to_example("1", question, passage)
        with self.turns.turn(check):
            features = self._windows(passage, question)
        batches = batches_by_tokens(features, self.answerer.batch_tokens)
        parts = []
        for indices in batches:
            with self.turns.turn(check):
                parts.append(self.answerer.predict_spans([features[index] for index in indices]))
        spans = in_feature_order(parts, batches)
        prediction = predictions([example], features, spans, self.answerer.null_threshold)[example.id]
        answer = to_answer(prediction, passage)
        return {
            "answer": {"text": answer.text, "score": answer.score, "probability": answer.probability},
            "start": prediction.start,
            "none": answer.none._asdict(),
            "others": [other._asdict() for other in answer.others[:NEXT_BEST]],
            "windows": len(features),
            "window": int(spans.score[:, 0].argmax()),
            "tokens": sum(len(feature.input_ids) for feature in features),
        }

    @torch.inference_mode()
    def window(self, check: Callable[[], None], passage: str, question: str, window: int) -> dict[str, Any]:
        """The tokens of one window, what each is part of and where it lies in the passage, and its two logits."""
        with self.turns.turn(check):
            feature, batch = self._window(passage, question, window)
            start, end = self.answerer.model(batch.input_ids, batch.token_type_ids, batch.attention_mask)
        template = pair_template(self.answerer.tokenizer)
        asked = range(template.before.shape[1], feature.context_start - template.between.shape[1])
        told = range(feature.context_start, feature.context_start + len(feature.offsets))
        tokens = []
        for place, id in enumerate(feature.input_ids.tolist()):
            part = "question" if place in asked else "passage" if place in told else "special"
            begin, stop = feature.offsets[place - told.start].tolist() if place in told else (-1, -1)
            tokens.append({"text": self.answerer.tokenizer.id_to_token(id), "part": part, "begin": begin, "end": stop})
        return {"tokens": tokens, "start": start[0].tolist(), "end": end[0].tolist()}

    def attention(
        self, check: Callable[[], None], passage: str, question: str, window: int, layer: int, head: int
    ) -> dict[str, Any]:
        """How each token shares out its attention in one head: rows of ten-thousandths; how many heads there are."""
        asked = passage, question, window
        with self.turns.turn(check):
            if self.weights is None or self.weights[0] != asked:
                _, batch = self._window(*asked)
                inputs = batch.input_ids, batch.token_type_ids, batch.attention_mask
                self.weights = asked, attention_weights(self.answerer.model, *inputs)[:, 0]
            weights = self.weights[1]
        layers, heads = weights.shape[:2]
        if not (0 <= layer < layers and 0 <= head < heads):
            raise DataError(f"layer {layer}, head {head}: the model has {layers} layers of {heads} heads")
        rows = (weights[layer, head] * 10_000).round().int().tolist()
        return {"rows": rows, "layers": layers, "heads": heads}

    def _windows(self, passage: str, question: str) -> list[Feature]:
        features = self.answerer.windows([to_example("1", question, passage)])
        tokens = sum(len(feature.input_ids) for feature in features)
        if tokens > MOST_TOKENS:
            raise TooLongError(
                f"question and passage make {tokens:,} tokens, at most {MOST_TOKENS:,} are read at once: shorten the "
                "passage, or ask with python -m qa.ask"
            )
        return features

    def _window(self, passage: str, question: str, number: int) -> tuple[Feature, Batch]:
        features = self._windows(passage, question)
        if not 0 <= number < len(features):
            raise DataError(f"window {number}: the passage makes {len(features)} of them, from 0 on")
        return features[number], collate([features[number]], self.answerer.model.config.pad_id)
