"""Pre-train an encoder as BERT was: hide some words of a text, predict them from the rest (masked language modelling).

    python train_mlm.py                                             makes weights/demo-bert-fa again (see its README)
    python train_mlm.py --recipe mlm --train FILE --out runs/NAME   a new tokenizer and a new BERT from your own text
    python train_mlm.py --recipe mlm --weights DIR --train FILE     goes on from a checkpoint, with its tokenizer

FILE is plain text, a document on each line (a tab in it parts the document into BERT's two segments), or SQuAD JSON,
of which each question with its context is a document.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from minitransformer.system import files
from minitransformer.system.errors import DataError, RecipeError, RunError, command_line
from minitransformer.system.shell import command
from minitransformer.training import checkpoint, parallel, recipe
from minitransformer.training.device import ahead, choose_device, compile_layers, move, seed_all
from minitransformer.training.log import Log
from minitransformer.training.masking import HiddenWords, Masking
from minitransformer.training.optim import linear_rate, parameter_groups, set_rate
from minitransformer.training.order import chunks, count_steps, due, epoch_order
from minitransformer.training.parallel import World
from minitransformer.training.precision import Precision
from minitransformer.training.progress import progress
from minitransformer.training.recipe import option
from minitransformer.training.run_folder import facts as run_facts
from minitransformer.training.run_folder import fingerprint, open_run_folder
from minitransformer.training.run_folder import resume as resume_run
from minitransformer.training.stop import Stop
from qa.documents import Piece, collate, cut, read_documents
from weights import load_pretrained, load_tokenizer, save_pretrained
from weights.new_model import new_masked_lm
from weights.new_tokenizer import train_tokenizer
from weights.tokenizer import ordinary_ids, special_tokens


@dataclass(frozen=True)
class Recipe:
    train: str = option("demo", "documents to learn from: text, SQuAD .json or .json.gz, or demo")
    valid: str = option("demo", "documents to measure on, likewise; empty: none")
    limit_train: int = option(0, "only the first N documents; 0: all", at_least=0)
    limit_valid: int = option(0, "only the first N documents; 0: all", at_least=0)
    weights: str = option("", "checkpoint to go on from, with its tokenizer and sizes; empty: a new model")
    # a new tokenizer and a new model
    architecture: str = option("bert", "of the new model", choices=("bert", "albert"))
    vocabulary: int = option(2000, "tokens of the vocabulary, at most", at_least=6)
    width: int = option(128, "of the hidden states", at_least=1)
    embedding_width: int = option(128, "of ALBERT's token table", at_least=1)
    layers: int = option(4, "Transformer layers; ALBERT applies one as often", at_least=1)
    heads: int = option(4, "of attention", at_least=1)
    ffn_width: int = option(512, "of the feed-forward part", at_least=1)
    positions: int = option(512, "longest input that the model can take", at_least=1)
    dropout: float = option(0.1, "of hidden states and attention weights", at_least=0.0, at_most=1.0)
    initializer_range: float = option(0.02, "standard deviation of fresh weights", at_least=0.0)
    sines: bool = option(False, "the position table starts as sine waves, so that 'one to the left' is easy to find")
    # masking (section 3.1 of BERT)
    mask_rate: float = option(0.15, "part of the words that is to be predicted", at_least=0.0, at_most=1.0)
    whole_words: bool = option(True, "all pieces of a word are chosen together")
    # training
    max_length: int = option(512, "longest input in tokens; longer documents are cut into several", at_least=3)
    shuffle: bool = option(True, "a new order in each epoch; otherwise the order of the file")
    epochs: int = option(1, "passes over the documents", at_least=0)
    max_steps: int = option(0, "stop after N steps; 0: after the epochs", at_least=0)
    batch_size: int = option(32, "documents in a step", at_least=1)
    micro_batch: int = option(0, "documents computed at once; a step gathers the gradients; 0: all", at_least=0)
    learning_rate: float = option(1e-3, "of AdamW, at its highest", at_least=0.0)
    beta2: float = option(0.999, "of AdamW: memory of the squared gradient", at_least=0.0, at_most=1.0)
    weight_decay: float = option(0.01, "of AdamW; biases and norms are left alone", at_least=0.0)
    warmup: float = option(0.05, "part of the steps in which the rate rises; then it falls", at_least=0.0, at_most=1.0)
    clip_norm: float = option(1.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    # the machine
    device: str = option("cpu", "where to run", choices=("cpu", "cuda"))
    precision: str = option("float32", "mixed: matrix products in 16 bits", choices=("float32", "mixed"))
    tf32: bool = option(False, "on a GPU, float32 products may round their factors to 10 bits")
    compile: bool = option(False, "compile the layers: a GPU saves time with it once it has run a minute")
    deterministic: bool = option(False, "on a GPU, the same bits in every run, from slower operations")
    # the run
    half: bool = option(False, "write the finished model in float16, half the size")
    seed: int = option(0, "of every random choice", at_least=0, at_most=2**32 - 1)
    print_every: int = option(100, "steps between printed lines", at_least=1, at_most=10**9)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: none", at_least=0)
    validate_every: int = option(0, "steps between validations; the best is what is written; 0: none", at_least=0)
    out: str = option("", "run folder; default runs/RECIPE", passing=True)
    resume: bool = option(False, "go on from the newest checkpoint in --out", passing=True)
    may_change: str = option("", "with --resume: fields of the recipe that may differ, with commas", passing=True)


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-mlm", description=__doc__)
    world = parallel.join(job.device)
    precision = Precision(job.precision, choose_device(job.device), job.tf32)
    seed_all(job.seed, job.deterministic)

    # file -> documents -> tokenizer -> pieces
    print(f"{name}: reading {job.train}", flush=True)
    documents = read_documents(job.train, "train", job.limit_train)
    held_out = read_documents(job.valid, "valid", job.limit_valid) if job.valid else []
    if job.validate_every and not held_out:
        raise RunError("--validate-every needs documents to validate on: name them by --valid")
    if job.weights:
        tokenizer = load_tokenizer(job.weights)
        model = load_pretrained(job.weights, "masked-lm").to(precision.device)
    else:
        tokenizer = train_tokenizer((text for texts in documents for text in texts), job.vocabulary)
        model = new_model(tokenizer, job).to(precision.device)
    if job.max_length > model.config.positions:
        raise RunError(f"max_length {job.max_length}: the model has {model.config.positions} positions")
    pieces = cut(documents, tokenizer, job.max_length)
    valid_pieces = cut(held_out, tokenizer, job.max_length)
    facts = run_facts(fingerprint(pieces), fingerprint(valid_pieces), world)
    folder = world.from_first(lambda: open_run_folder(job.out, name, job, job.resume, job.may_change, facts))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {tokenizer.get_vocab_size():,} tokens in the "
          f"vocabulary; {len(pieces):,} texts to learn from; everything goes to {folder}/", flush=True)  # fmt: skip
    if precision.remark:
        print(precision.remark)

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
    model: nn.Module,
    pieces: list[Piece],
    masking: Masking,
    job: Recipe,
    folder: Path,
    world: World,
    precision: Precision,
    validate: Callable[[], float] | None = None,
) -> None:
    """The loop. validate: how good the model is now, more is better."""
    device = precision.device
    steps_per_epoch, steps = count_steps(len(pieces), job.batch_size, job.epochs, job.max_steps)
    parameters = list(model.parameters())
    groups = parameter_groups(model, job.weight_decay, decay_all=False)
    optimizer = torch.optim.AdamW(groups, job.learning_rate, (0.9, job.beta2), fused=True)
    torch.manual_seed(job.seed + world.rank)  # dropout differs between processes

    checkpoints = folder / "checkpoints"
    held = model, optimizer, world, precision.scaler
    done = resume_run(folder, job, *held)
    every = 1 if device.type == "cpu" else job.print_every
    log = Log(folder, "tokens", every, window=job.print_every, extra=["accuracy"], resume_step=done, writes=world.first)
    if job.compile:
        compile_layers(model)

    model.train()
    coming = ahead(
        batches(pieces, masking, job, range(done, steps), steps_per_epoch, model.config.pad_id, world), device
    )
    with Stop() as stop, progress("pre-training", done, steps, world) as bar:
        for step, (words, tokens, parts) in enumerate(coming, start=done):
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

            bar.update()
            stopping = False
            accuracy = right / max(1, words)
            if log.add(step=step + 1, epoch=epoch + 1, loss=loss, lr=rate, count=tokens, accuracy=accuracy):
                bar.set_postfix_str(str(log), refresh=False)
                if (step + 1) % job.print_every == 0:
                    bar.write(f"Epoch [{epoch + 1}] Batch [{batch_number + 1}] - Loss = {log.running_mean:.4f}")
                stopping = world.any(stop.signal)
            validating = due(step + 1, job.validate_every, steps)
            if stopping or validating or due(step + 1, job.checkpoint_every):
                log.sync()
                score = validate() if validating else None
                model.train()  # which a validation ends
                saved = checkpoint.save_checkpoint(checkpoints, step + 1, *held, score=score)
                if stopping:
                    stop.stop(step + 1, saved)
    log.close()
    if job.validate_every and steps:
        checkpoint.load_best(checkpoints, model, world)


def batches(
    pieces: list[Piece], masking: Masking, job: Recipe, steps: range, steps_per_epoch: int, pad_id: int, world: World
) -> Iterator[tuple[int, int, list[HiddenWords]]]:
    """For each step the number of its hidden words and its tokens, and this process's share of its texts."""
    for step in steps:
        epoch, batch_number = divmod(step, steps_per_epoch)
        if step == steps.start or batch_number == 0:
            order = epoch_order(len(pieces), job.seed, epoch).tolist() if job.shuffle else range(len(pieces))
        chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
        # Every process hides words in the whole batch, all the same ones, and then takes its share.
        whole = masking.hide(collate([pieces[index] for index in chosen], pad_id), seed=job.seed * 1_000_003 + step)
        shares = chunks(world.share(range(len(chosen))), job.micro_batch)
        yield len(whole.labels), int(whole.attention_mask.sum()), [whole.texts(rows) for rows in shares]


@torch.no_grad()
def evaluate(
    model: nn.Module, pieces: list[Piece], masking: Masking, job: Recipe, world: World, precision: Precision
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
    loss, right, total = map(sum, zip(*world.gather((loss, right, total)), strict=True))
    return {"loss": loss / max(1, total), "accuracy": 100 * right / max(1, total), "total": total}


def masking_for(tokenizer: Tokenizer, job: Recipe) -> Masking:
    mask = special_tokens(tokenizer).mask
    if mask is None:
        raise DataError(f"{job.weights}: its tokenizer has no mask token; go on from a masked language model")
    return Masking(job.mask_rate, job.whole_words, tokenizer.token_to_id(mask), torch.tensor(ordinary_ids(tokenizer)))


def new_model(tokenizer: Tokenizer, job: Recipe) -> nn.Module:
    if job.width % job.heads:
        raise RecipeError(f"width {job.width} is no multiple of heads {job.heads}: choose another of the two")
    names = ["width", "layers", "heads", "ffn_width", "positions", "initializer_range"]
    names += ["embedding_width"] if job.architecture == "albert" else []
    sizes = {name: getattr(job, name) for name in names}
    sizes |= {"vocabulary": tokenizer.get_vocab_size(), "pad_id": tokenizer.padding["pad_id"]}
    return new_masked_lm(job.architecture, job.sines, dropout=job.dropout, attention_dropout=job.dropout, **sizes)


if __name__ == "__main__":
    main()
