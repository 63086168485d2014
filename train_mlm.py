"""Pre-train an encoder as BERT was: hide some words of a text, predict them from the rest (masked language modelling).

    python train_mlm.py                                         makes weights/demo-bert-fa again (see its README)
    python train_mlm.py --train FILE --out runs/NAME            a new tokenizer and a new BERT from your own text
    python train_mlm.py --weights DIR --train FILE ...          goes on from a checkpoint, with its tokenizer

FILE is plain text, a document on each line (a tab in it parts the document into BERT's two segments), or SQuAD JSON,
of which each question with its context is a document.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from minitransformer import checkpoint, files, recipe
from minitransformer.albert import AlbertConfig, AlbertForMaskedLM
from minitransformer.bert import BertConfig, BertForMaskedLM, initialise
from minitransformer.errors import DataError, RecipeError, RunError, command_line
from minitransformer.masking import Masking
from minitransformer.optim import check_loss, linear_rate, parameter_groups
from minitransformer.recipe import option
from minitransformer.run import Log, choose_device, epoch_order, open_run_folder
from qa.documents import Batch, Piece, collate, cut, read_documents
from weights import load_pretrained, load_tokenizer, save_pretrained
from weights.new_tokenizer import train_tokenizer
from weights.tokenizer import special_tokens


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
    learning_rate: float = option(1e-3, "of AdamW, at its highest", at_least=0.0)
    beta2: float = option(0.999, "of AdamW: memory of the squared gradient", at_least=0.0, at_most=1.0)
    weight_decay: float = option(0.01, "of AdamW; biases and norms are left alone", at_least=0.0)
    warmup: float = option(
        0.05, "part of all steps in which the rate rises; then it falls to 0", at_least=0.0, at_most=1.0
    )
    clip_norm: float = option(1.0, "largest norm of the gradient; 0: no clipping", at_least=0.0)
    # the run
    half: bool = option(False, "write the finished model in float16, half the size")
    seed: int = option(0, "of every random choice", at_least=0)
    print_every: int = option(100, "steps between printed lines", at_least=1)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: none", at_least=0)
    device: str = option("cpu", "where to run", choices=("cpu", "cuda"))
    out: str = option("", "run folder; default runs/RECIPE", passing=True)
    resume: bool = option(False, "go on from the newest checkpoint in --out", passing=True)


@command_line
def main() -> None:
    name, job = recipe.parse(Recipe, default="demo-mlm", description=__doc__)
    device = choose_device(job.device)
    torch.manual_seed(job.seed)

    # file -> documents -> tokenizer -> pieces
    documents = read_documents(job.train, "train", job.limit_train)
    held_out = read_documents(job.valid, "valid", job.limit_valid) if job.valid else []
    if job.weights:
        tokenizer = load_tokenizer(job.weights)
        model = load_pretrained(job.weights, "masked-lm").to(device)
    else:
        tokenizer = train_tokenizer((text for texts in documents for text in texts), job.vocabulary)
        model = new_model(tokenizer, job).to(device)
    if job.max_length > model.config.positions:
        raise RunError(f"max_length {job.max_length}: the model has {model.config.positions} positions")
    pieces = cut(documents, tokenizer, job.max_length)
    valid_pieces = cut(held_out, tokenizer, job.max_length)
    folder = open_run_folder(job.out, name, job, job.resume)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, {tokenizer.get_vocab_size():,} tokens in the vocabulary; "
          f"{len(pieces):,} texts to learn from; everything goes to {folder}/", flush=True)  # fmt: skip

    masking = masking_for(tokenizer, job)
    train(model, pieces, masking, job, folder)
    if valid_pieces:
        scores = evaluate(model, valid_pieces, masking, job)
        files.write_json(folder / "metrics.json", scores)
        print("  ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    save_pretrained(model.half() if job.half else model, folder / "model", tokenizer)


def train(model: BertForMaskedLM, pieces: list[Piece], masking: Masking, job: Recipe, folder: Path) -> None:
    """The loop."""
    device = next(model.parameters()).device
    steps_per_epoch = -(-len(pieces) // job.batch_size)
    steps = job.epochs * steps_per_epoch
    steps = min(steps, job.max_steps) if job.max_steps else steps
    groups = parameter_groups(model, job.weight_decay, decay_all=False)
    optimizer = torch.optim.AdamW(groups, job.learning_rate, (0.9, job.beta2), fused=True)

    done = 0
    saved = checkpoint.whole_checkpoints(folder / "checkpoints")
    if job.resume and saved:
        done = checkpoint.load_checkpoint(saved[-1], model, optimizer)
        print(f"resumed at step {done} of {steps} from {saved[-1]}", flush=True)
    columns = ["step", "epoch", "loss", "running_mean", "accuracy", "lr", "tokens_per_second"]
    log = Log(folder / "log.csv", columns, resume_step=done if job.resume else None)

    model.train()
    with tqdm(total=steps, initial=done, unit="step", desc="pre-training", smoothing=0.1) as bar:
        for step in range(done, steps):
            epoch, batch_number = divmod(step, steps_per_epoch)
            if step == done or batch_number == 0:
                order = epoch_order(len(pieces), job.seed, epoch).tolist() if job.shuffle else range(len(pieces))

            rate = job.learning_rate * linear_rate(step, round(job.warmup * steps), steps)
            for group in optimizer.param_groups:
                group["lr"] = rate

            started = time.monotonic()
            chosen = order[batch_number * job.batch_size : (batch_number + 1) * job.batch_size]
            batch = collate([pieces[index] for index in chosen], model.config.pad_id)
            inputs, hidden = masking(batch.input_ids, batch.words)  # on the CPU, so that a GPU run hides the same words
            labels = batch.input_ids[hidden].to(device)  # (M,)
            logits = predict(model, batch, inputs, hidden)  # (M, V)
            loss = F.cross_entropy(logits, labels, reduction="sum") / max(1, len(labels))
            check_loss(loss.item(), step + 1, checkpoint.last_good(saved, step))
            loss.backward()
            if job.clip_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), job.clip_norm)
            optimizer.step()
            optimizer.zero_grad()

            recent = [*(row["loss"] for row in log.rows[-job.print_every :]), loss.item()][-job.print_every :]
            mean = sum(recent) / len(recent)
            accuracy = (logits.argmax(-1) == labels).float().mean().item() if len(labels) else 0.0
            speed = int(batch.attention_mask.sum()) / (time.monotonic() - started)
            log.add(step=step + 1, epoch=epoch + 1, loss=loss.item(), running_mean=mean, accuracy=accuracy, lr=rate,
                    tokens_per_second=speed)  # fmt: skip
            bar.set_postfix_str(f"loss {mean:.3f}, {speed:,.0f} tokens/s", refresh=False)
            bar.update()
            if (step + 1) % job.print_every == 0:
                bar.write(f"Epoch [{epoch + 1}] Batch [{batch_number + 1}] - Loss = {mean:.4f}")
            if job.checkpoint_every and (step + 1) % job.checkpoint_every == 0:
                log.sync()
                saved.append(checkpoint.save_checkpoint(folder / "checkpoints", step + 1, model, optimizer))
    log.close()


def predict(model: BertForMaskedLM, batch: Batch, inputs: Tensor, hidden: Tensor) -> Tensor:
    """Logits over the vocabulary where words are hidden, (M, V)."""
    device = next(model.parameters()).device
    tensors = (inputs, batch.token_type_ids, batch.attention_mask, hidden)
    return model(*(tensor.to(device) for tensor in tensors))


@torch.no_grad()
def evaluate(model: BertForMaskedLM, pieces: list[Piece], masking: Masking, job: Recipe) -> dict[str, float]:
    """Loss and accuracy (in %) on documents that training has not seen; the seed decides what is hidden."""
    model.eval()
    torch.manual_seed(job.seed)
    loss, right, total = 0.0, 0, 0
    for first in range(0, len(pieces), job.batch_size):
        batch = collate(pieces[first : first + job.batch_size], model.config.pad_id)
        inputs, hidden = masking(batch.input_ids, batch.words)
        labels = batch.input_ids[hidden]
        logits = predict(model, batch, inputs, hidden).cpu()
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(-1) == labels).sum())
        total += len(labels)
    return {"loss": loss / max(1, total), "accuracy": 100 * right / max(1, total), "total": total}


def masking_for(tokenizer: Tokenizer, job: Recipe) -> Masking:
    mask = special_tokens(tokenizer).mask
    if mask is None:
        raise DataError(f"{job.weights}: its tokenizer has no mask token; go on from a masked language model")
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ordinary = sorted(set(tokenizer.get_vocab().values()) - special)
    return Masking(job.mask_rate, job.whole_words, tokenizer.token_to_id(mask), torch.tensor(ordinary))


def new_model(tokenizer: Tokenizer, job: Recipe) -> BertForMaskedLM:
    if job.width % job.heads:
        raise RecipeError(f"width {job.width} is no multiple of heads {job.heads}: choose another of the two")
    sizes = {
        "vocabulary": tokenizer.get_vocab_size(),
        "width": job.width,
        "layers": job.layers,
        "heads": job.heads,
        "ffn_width": job.ffn_width,
        "dropout": job.dropout,
        "attention_dropout": job.dropout,
        "positions": job.positions,
        "initializer_range": job.initializer_range,
        "pad_id": tokenizer.padding["pad_id"],
    }
    if job.architecture == "albert":
        model = AlbertForMaskedLM(AlbertConfig(embedding_width=job.embedding_width, **sizes))
    else:
        model = BertForMaskedLM(BertConfig(**sizes))
    initialise(model, job.initializer_range)
    if job.sines:
        table = model.encoder.embeddings.position.weight
        table.data = sines(*table.shape) * job.initializer_range
    return model


def sines(positions: int, width: int) -> Tensor:
    """Sine waves of falling frequency (Vaswani et al. 2017, section 3.5), (positions, width), of deviation 1.

    A step along the text is a rotation, the same at every place; a table of random rows has to learn each place.
    """
    frequency = 10_000.0 ** -(torch.arange(0, width, 2) / width)
    angle = torch.arange(positions)[:, None] * frequency
    return math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]


if __name__ == "__main__":
    main()
