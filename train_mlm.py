"""Pre-train an encoder as BERT was: hide some words of a text, predict them from the rest (masked language modelling).

    python train_mlm.py                                             makes weights/demo-bert-fa again (see its README)
    python train_mlm.py --recipe mlm --train FILE --out runs/NAME   a new tokenizer and a new BERT from your own text
    python train_mlm.py --recipe mlm --weights DIR --train FILE     goes on from a checkpoint, with its tokenizer

FILE is plain text, a document on each line (a tab in it parts the document into BERT's two segments), or SQuAD JSON,
of which each question with its context is a document.
What can be told stands in recipes/mlm.py.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from minitransformer.bert import BertForMaskedLM
from minitransformer.system import files
from minitransformer.system.errors import DataError, RecipeError, RunError, command_line
from minitransformer.system.progress import say
from minitransformer.system.shell import command
from minitransformer.training import recipe
from minitransformer.training.device import ahead, move
from minitransformer.training.masking import HiddenWords, Masking
from minitransformer.training.optim import linear_rate, parameter_groups, set_rate
from minitransformer.training.order import chunks, count_steps, epoch_order
from minitransformer.training.parallel import World
from minitransformer.training.precision import Precision
from minitransformer.training.run import Run, start
from minitransformer.training.run_folder import facts, fingerprint, open_run_folder
from qa import demo
from qa.documents import Piece, collate, cut, read_documents, split_lines
from recipes.mlm import Recipe
from weights import load_pretrained, load_tokenizer, save_pretrained
from weights.new_model import new_masked_lm
from weights.new_tokenizer import train_tokenizer
from weights.tokenizer import ordinary_ids, special_tokens


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-mlm", description=__doc__)
    world, precision = start(job)
    say(f"{name}: reading {job.train}")

    # file -> documents -> tokenizer -> pieces
    documents = read(job.train, "train", job.limit_train)
    held_out = read(job.valid, "valid", job.limit_valid) if job.valid else []
    if job.validate_every and not held_out:
        raise RunError("--validate-every needs documents to validate on: name them by --valid")
    tokenizer, model = open_model(documents, job)
    model.to(precision.device)
    pieces, valid_pieces = (cut(part, tokenizer, job.max_length) for part in (documents, held_out))

    data = facts(fingerprint(pieces), fingerprint(valid_pieces), world)
    folder = world.from_first(lambda: open_run_folder(job.out, name, job, job.resume, job.may_change, data))
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {tokenizer.get_vocab_size():,} tokens in the "
        f"vocabulary; {len(pieces):,} texts to learn from; everything goes to {folder}/")  # fmt: skip
    say(*filter(None, [precision.remark]))

    # pieces -> batches with words hidden -> logits -> loss -> step
    masking = masking_for(tokenizer, job)
    validation = model, valid_pieces, masking, job, world, precision
    train(model, pieces, masking, job, folder, world, precision, lambda: -evaluate(*validation)["loss"])
    scores = evaluate(*validation) if valid_pieces else None
    if not world.first:
        return
    if scores:
        files.write_json(folder / "metrics.json", scores)
        print("  ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    save_pretrained(model.half() if job.half else model, folder / "model", tokenizer)
    print("train on it:  " + command("train_qa.py", "--recipe", "modern", "--weights", folder / "model"))


def train(
    model: BertForMaskedLM,
    pieces: list[Piece],
    masking: Masking,
    job: Recipe,
    folder: Path,
    world: World,
    precision: Precision,
    validate: Callable[[], float] | None = None,
) -> None:
    """The loop. validate: how good the model is now, more is better."""
    device, parameters = precision.device, list(model.parameters())
    steps_per_epoch, steps = count_steps(len(pieces), job.batch_size, job.epochs, job.max_steps)
    groups = parameter_groups(model, job.weight_decay, decay_all=False)
    optimizer = torch.optim.AdamW(groups, job.learning_rate, (0.9, job.beta2), fused=True)

    window = job.print_every  # an epoch can be longer than one waits to see whether anything is learnt
    with Run(folder, job, model, optimizer, world, precision, steps, "tokens", window, ["accuracy"]) as run:
        coming = batches(pieces, masking, job, range(run.done, steps), steps_per_epoch, model.config.pad_id, world)
        for step, (words, tokens, parts) in enumerate(ahead(coming, device), start=run.done):
            epoch, batch_number = divmod(step, steps_per_epoch)
            rate = job.learning_rate * linear_rate(step, round(job.warmup * steps), steps)
            set_rate(optimizer, rate)

            numbers = torch.zeros(2, device=device)  # the loss, and how many hidden words were found
            for part in parts:
                part = move(part, device)
                with precision.autocast():
                    logits = model(part.input_ids, part.token_type_ids, part.attention_mask, part.hidden)  # (M, V)
                    loss = F.cross_entropy(logits, part.labels, reduction="sum") / max(1, words)
                precision.backward(loss)
                numbers += torch.stack([loss.detach(), (logits.argmax(-1) == part.labels).sum()])
            loss, right = world.sum_gradients(parameters, numbers)
            precision.step(optimizer, parameters, job.clip_norm)

            run.record(step, epoch, batch_number, loss, rate, tokens, accuracy=right / max(1, words))
            run.save(step, validate)


def batches(
    pieces: list[Piece], masking: Masking, job: Recipe, steps: range, steps_per_epoch: int, pad_id: int, world: World
) -> Iterator[tuple[int, int, list[HiddenWords]]]:
    """For each step the number of its hidden words and its tokens, and this process's share of its texts."""
    order: list[int] = []
    for step in steps:
        epoch, batch_number = divmod(step, steps_per_epoch)
        if not order or batch_number == 0:
            order = epoch_order(len(pieces), job.seed, epoch).tolist() if job.shuffle else list(range(len(pieces)))
        chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
        # Every process hides words in the whole batch, all the same ones, and then takes its share.
        whole = masking.hide(collate([pieces[index] for index in chosen], pad_id), seed=job.seed * 1_000_003 + step)
        shares = chunks(world.share(range(len(chosen))), job.micro_batch)
        yield len(whole.labels), int(whole.attention_mask.sum()), [whole.texts(rows) for rows in shares]


@torch.no_grad()
def evaluate(
    model: BertForMaskedLM, pieces: list[Piece], masking: Masking, job: Recipe, world: World, precision: Precision
) -> dict[str, float]:
    """Loss and accuracy (in %) on documents that training has not seen; the seed decides what is hidden."""
    model.eval()
    loss, right, total = 0.0, 0, 0
    for first in world.share(range(0, len(pieces), job.batch_size)):
        whole = masking.hide(collate(pieces[first : first + job.batch_size], model.config.pad_id), job.seed + first)
        part = move(whole, precision.device)
        with precision.autocast():
            logits = model(part.input_ids, part.token_type_ids, part.attention_mask, part.hidden)
        loss += F.cross_entropy(logits, part.labels, reduction="sum").item()
        right += int((logits.argmax(-1) == part.labels).sum())
        total += len(part.labels)
    losses, rights, totals = zip(*world.gather((loss, right, total)), strict=True)
    loss, right, total = sum(losses), sum(rights), sum(totals)
    return {"loss": loss / max(1, total), "accuracy": 100 * right / max(1, total), "total": total}


def read(source: str, part: str, limit: int) -> list[tuple[str, ...]]:
    if source == "demo":
        return split_lines(demo.pretraining_text(part, limit or None), source)
    documents = read_documents(source)
    return documents[:limit] if limit else documents


def masking_for(tokenizer: Tokenizer, job: Recipe) -> Masking:
    mask = special_tokens(tokenizer).mask
    mask_id = None if mask is None else tokenizer.token_to_id(mask)
    if mask_id is None:
        raise DataError(f"{job.weights}: its tokenizer has no mask token; go on from a masked language model")
    return Masking(job.mask_rate, job.whole_words, mask_id, torch.tensor(ordinary_ids(tokenizer)))


def open_model(documents: list, job: Recipe) -> tuple[Tokenizer, BertForMaskedLM]:
    """The checkpoint to go on from, or a tokenizer learnt from the documents and a fresh model for it."""
    if job.weights:
        tokenizer, model = load_tokenizer(job.weights), load_pretrained(job.weights, "masked-lm")
    else:
        tokenizer = train_tokenizer((text for texts in documents for text in texts), job.vocabulary)
        model = new_model(tokenizer, job)
    if job.max_length > model.config.positions:
        raise RunError(f"max_length {job.max_length}: the model has {model.config.positions} positions")
    return tokenizer, model


def new_model(tokenizer: Tokenizer, job: Recipe) -> BertForMaskedLM:
    if job.width % job.heads:
        raise RecipeError(f"width {job.width} is no multiple of heads {job.heads}: choose another of the two")
    names = ["width", "layers", "heads", "ffn_width", "positions", "initializer_range"]
    names += ["embedding_width"] if job.architecture == "albert" else []
    sizes = {name: getattr(job, name) for name in names}
    sizes |= {"vocabulary": tokenizer.get_vocab_size(), "pad_id": (tokenizer.padding or {})["pad_id"]}
    return new_masked_lm(job.architecture, job.sines, dropout=job.dropout, attention_dropout=job.dropout, **sizes)


if __name__ == "__main__":
    main()
