"""Seconds to load an answerer, to answer one question, and to read many; peak memory; whether the answers agree.

python -m bench.answer --model DIR --data FILE

Contenders: ours as `Answerer` has it, in float32 and in 16 bits; transformers' model with its own fast tokenizer; and,
where they are installed (extra `bench`), ONNX Runtime in float32 and int8 and OpenVINO, all three on an export of
transformers' model. Version 5 of transformers has no question answering pipeline, so what stood in it is written out
here for all but ours: tokenize a pair, run the model, take the best span. Every contender runs in a process of its own,
in turns; what is exported is exported before. "As float32" counts the questions that get the text that ours in
float32 gives.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.common import in_fresh_process, in_turns, machine, peak_memory, table
from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser, whole_number
from qa import squad
from qa.answerer import SHIPPED, Answerer
from qa.spans import best_spans, cut
from qa.squad import Example
from weights import load_pretrained, save_pretrained
from weights.find import find_folder

FLOAT, MIXED = "ours, float32", "ours, 16 bits"
HF, ONNX, ONNX_INT8, OPENVINO = "HF", "ONNX Runtime, float32", "ONNX Runtime, int8", "OpenVINO, float32"
NEEDS = {
    ONNX: ("onnxruntime", "onnxscript"),
    ONNX_INT8: ("onnxruntime", "onnxscript"),
    OPENVINO: ("openvino", "onnxscript"),
}
HEAD = (
    "contender",
    "load",
    "one answer, median",
    "least to most",
    "many, a second",
    "peak memory, one by one",
    "many",
    "as float32",
)
BATCH = 16  # of the exported models, in reading all
LONGEST_ANSWER = 64


@command_line
def main() -> None:
    args = parse()
    if args.contender == "export":
        export(args)
        return
    if args.contender:
        print(json.dumps(measure(args)))
        return
    contenders = [name for name in (FLOAT, MIXED, HF, ONNX, ONNX_INT8, OPENVINO) if installed(name)]
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process("bench.answer", "--contender", "export", "--exported", folder)
        results = in_turns("bench.answer", contenders, args.rounds, "--exported", folder)
    exact = results[FLOAT][0]["answers"]
    rows = []
    for name, runs in results.items():
        seconds = [second for run in runs for second in run["seconds"]]
        same = sum(a == b for a, b in zip(exact, runs[0]["answers"], strict=True)) / len(exact)
        rows.append([
            name,
            f"{min(run['load'] for run in runs):.2f} s",
            f"{1000 * statistics.median(seconds):.0f} ms",
            f"{1000 * min(seconds):.0f} to {1000 * max(seconds):.0f}",
            f"{statistics.median(run['rate'] for run in runs):.1f}",
            f"{max(run['peak_single'] for run in runs) / 1e6:.0f} MB",
            f"{max(run['peak'] for run in runs) / 1e6:.0f} MB",
            f"{100 * same:.1f} %",
        ])  # fmt: skip
    print(table(HEAD, *rows))
    missing = [name for name in NEEDS if not installed(name)]
    print(f"\n{len(exact)} questions of {args.data}; {machine(args.threads)}"
          + (f"; not installed: {', '.join(missing)}" if missing else ""))  # fmt: skip


def parse() -> argparse.Namespace:
    parser = FlagParser(prog="python -m bench.answer", description=__doc__)
    count = whole_number(at_least=1)
    parser.add_argument("--model", metavar="DIR", default=SHIPPED, help=f"a trained model's folder or name ({SHIPPED})")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions, SQuAD .json or .json.gz")
    parser.add_argument("--count", type=count, default=256, metavar="N", help="the first N questions (256)")
    parser.add_argument("--single", type=count, default=40, metavar="N", help="of which so many one by one (40)")
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--rounds", type=count, default=2)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--exported", help=argparse.SUPPRESS)
    return parser.parse_args()


def installed(name: str) -> bool:
    return all(find_spec(module) for module in NEEDS.get(name, ()))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One contender: seconds to load it, of single answers, questions a second in batches, and its answers."""
    torch.set_num_threads(args.threads)
    examples = squad.read(args.data)[: args.count]
    began = time.perf_counter()
    answer = contender(args.contender, args)
    loaded = time.perf_counter() - began
    answer(examples[:1])  # warms up
    seconds = []
    for example in examples[: args.single]:
        began = time.perf_counter()
        answer([example])
        seconds.append(time.perf_counter() - began)
    peak_single = peak_memory()
    began = time.perf_counter()
    answers = answer(examples)
    rate = len(examples) / (time.perf_counter() - began)
    peaks = {"peak_single": peak_single, "peak": peak_memory()}
    return {"load": loaded, "seconds": seconds, "rate": rate, "answers": answers, **peaks}


def contender(name: str, args: argparse.Namespace) -> Callable[[Sequence[Example]], list[str]]:
    """From examples to texts."""
    if name in (FLOAT, MIXED):
        answerer = Answerer(args.model, "mixed" if name == MIXED else "float32", null_threshold=0.0)
        return lambda examples: [prediction.text for prediction in answerer.predict(examples).values()]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(find_folder(args.model))
    run = {HF: hf, ONNX: onnx, ONNX_INT8: onnx, OPENVINO: openvino}[name](args)
    return lambda examples: by_length(examples, tokenizer, run)


def by_length(examples: Sequence[Example], tokenizer: Any, run: Callable) -> list[str]:
    """The best span of each, in batches of like length. Passages that need windows are cut; PQuAD has none."""
    texts = [""] * len(examples)
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].context))
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        pairs = [(examples[index].question.lstrip(), examples[index].context) for index in chosen]
        inputs = tokenizer([q for q, _ in pairs], [c for _, c in pairs], truncation="only_second", max_length=512,
                           padding=True, return_offsets_mapping=True, return_tensors="np")  # fmt: skip
        start, end = (torch.from_numpy(np.asarray(part)).float() for part in run(inputs))
        inside = torch.tensor([[part == 1 for part in inputs.sequence_ids(row)] for row in range(len(chosen))])
        best = best_spans(start, end, inside, LONGEST_ANSWER)
        for row, index in enumerate(chosen):
            if best.score[row, 0] >= best.null_score[row]:
                offsets = inputs["offset_mapping"][row]
                begin, end = offsets[best.start[row, 0], 0], offsets[best.end[row, 0], 1]
                _, texts[index] = cut(examples[index].context, begin, end)
    return texts


def arrays(inputs: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(inputs[name], np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}


def hf(args: argparse.Namespace) -> Callable:
    from transformers import AutoModelForQuestionAnswering

    folder = Path(args.exported) / "plain"
    model = AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(inputs: Any) -> tuple[np.ndarray, np.ndarray]:
        logits = model(**{name: torch.from_numpy(array) for name, array in arrays(inputs).items()})
        return logits.start_logits.numpy(), logits.end_logits.numpy()

    return run


def onnx(args: argparse.Namespace) -> Callable:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    file = Path(args.exported) / ("int8.onnx" if args.contender == ONNX_INT8 else "model.onnx")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, arrays(inputs))


def openvino(args: argparse.Namespace) -> Callable:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(Path(args.exported) / "model.onnx", "CPU", settings)
    return lambda inputs: [model(arrays(inputs))[number] for number in (0, 1)]


def export(args: argparse.Namespace) -> None:
    """The model as transformers reads it, since what ships is quantised; the same as ONNX, where that is installed, and
    rounded to int8 by ONNX Runtime's dynamic quantisation."""
    folder = Path(args.exported)
    save_pretrained(load_pretrained(args.model, "question-answering", fresh_head=False), folder / "plain")
    if installed(ONNX):
        from onnxruntime.quantization import quantize_dynamic
        from transformers import AutoModelForQuestionAnswering

        model = AutoModelForQuestionAnswering.from_pretrained(folder / "plain", attn_implementation="eager").eval()
        names = ("input_ids", "attention_mask", "token_type_ids")
        batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=model.config.max_position_embeddings)
        torch.onnx.export(model, (), folder / "model.onnx", kwargs={name: torch.ones(2, 8).long() for name in names},
                          input_names=names, output_names=["start", "end"], dynamo=True, external_data=False,
                          dynamic_shapes={name: {0: batch, 1: length} for name in names})  # fmt: skip
        quantize_dynamic(folder / "model.onnx", folder / "int8.onnx")
    print("{}")


if __name__ == "__main__":
    main()
