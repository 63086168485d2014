"""What the page asks of the model: an answer, the tokens of a window with their scores, a head's attention."""

import threading
from typing import Any

import torch
from torch import Tensor

from minitransformer.attention_weights import attention_weights
from minitransformer.system.errors import DataError
from qa.answerer import Answerer, to_answer, to_example
from qa.ask import NEXT_BEST
from qa.features import Batch, Feature, collate, pair_template
from qa.spans import predictions


class Reader:
    """A model and its tokenizer, for one request at a time, and the attention weights of the window asked for last."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self.lock = threading.Lock()
        self.weights: tuple[tuple[str, str, int], Tensor] | None = None  # what they are of, (L, H, T, T)

    def answer(self, passage: str, question: str) -> dict[str, Any]:
        """The answer and its rivals, where it begins (in code points), and the window with the best span."""
        example = to_example("1", question, passage)
        features = self.answerer.windows([example])
        spans = self.answerer.read(features)
        prediction = predictions([example], features, spans, self.answerer.null_threshold)[example.id]
        answer = to_answer(prediction)
        return {
            "answer": {"text": answer.text, "score": answer.score, "probability": answer.probability},
            "start": prediction.start,
            "none": answer.none._asdict(),
            "others": [other._asdict() for other in answer.others[:NEXT_BEST]],
            "windows": len(features),
            "window": int(spans.score[:, 0].argmax()),
        }

    @torch.inference_mode()
    def window(self, passage: str, question: str, window: int) -> dict[str, Any]:
        """The tokens of one window, what each is part of and where it lies in the passage, and its two logits."""
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

    def attention(self, passage: str, question: str, window: int, layer: int, head: int) -> dict[str, Any]:
        """How each token shares out its attention in one head: rows of ten-thousandths; how many heads there are."""
        asked = passage, question, window
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

    def _window(self, passage: str, question: str, number: int) -> tuple[Feature, Batch]:
        features = self.answerer.windows([to_example("1", question, passage)])
        if not 0 <= number < len(features):
            raise DataError(f"window {number}: the passage makes {len(features)} of them, from 0 on")
        return features[number], collate([features[number]], self.answerer.model.config.pad_id)
