"""What is in a picture? A model over images, and the command that gives the five likeliest classes of image files.

python -m vision.predict --model runs/demo-vit/model IMAGE...
python -m vision.predict --model runs/demo-vit/model IMAGE --attention looks.png       what it looks at, as a picture
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minitransformer.dinov2 import ImageClassifier
from minitransformer.system import files
from minitransformer.system.errors import RunError, WeightsError, command_line, printable
from minitransformer.system.flags import FlagParser
from minitransformer.system.progress import progress
from minitransformer.training.device import choose_device
from minitransformer.training.precision import Precision
from minitransformer.vit import images_at_once
from vision.attention import cls_attention, plot_attention
from vision.images import Images, Preprocessing, normalise, prepare_all, read_settings
from weights import load_pretrained
from weights.load import read_labels

TOP = 5


def pixels(images: Images, settings: Preprocessing, patch: int, device: torch.device) -> Tensor:
    """The images as a model with patches of that size reads them, (B, 3, H, W) float32. DataError where it cannot."""
    return normalise(prepare_all(images.pictures, settings, patch, quiet=True).to(device), settings)


@torch.no_grad()
def classify(model: ImageClassifier, images: Images, settings: Preprocessing, batch_size: int) -> Tensor:
    """Logits of all images, (N, K), on the CPU. batch_size: images at once on a GPU.

    Raises RunError where a logit is not finite: such a model has no answers.
    """
    model.eval()
    device, config = next(model.parameters()).device, model.config
    size = settings.crop or settings.resized(config.image_size, config.image_size)
    logits = []
    # pyrefly: ignore[bad-argument-type] - a Dinov2Config has all that is asked for
    batch_size = images_at_once(config, size, device, batch_size)
    with progress(total=len(images), desc="predicting", unit="image", leave=False) as bar:
        for chosen in torch.arange(len(images)).split(batch_size):
            logits.append(model(pixels(images.take(chosen), settings, config.patch, device)).cpu())
            if not logits[-1].isfinite().all():
                raise RunError("the model answers with NaN: its weights are damaged, or its training has diverged")
            bar.update(len(chosen))
    return torch.cat(logits) if logits else torch.empty(0, config.classes)


def likeliest(probabilities: Tensor, classes: list[str]) -> list[tuple[str, float]]:
    """The likeliest classes of one image, fit to be printed, and their probabilities, falling. probabilities: (K,).

    Two classes may have one name: ImageNet's cranes are birds, and machines.
    """
    best = probabilities.topk(min(TOP, len(classes)))
    return [(printable(classes[number]), value) for value, number in zip(*map(Tensor.tolist, best), strict=True)]


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m vision.predict", description=__doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a trained model's folder, as runs/NAME/model")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument("--attention", metavar="FILE", help="a PNG to write: the IMAGE, its classes, what it looks at")
    parser.add_argument(
        "--precision",
        default="float32",
        choices=["float32", "mixed"],
        help="mixed: matrix products in 16 bits, where there are units for them",
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "mps"])
    args = parser.parse_args()
    if args.attention:
        if len(args.images) > 1:
            parser.error(f"--attention draws one IMAGE, and there are {len(args.images)}")
        files.check_writable(args.attention, *args.images)

    settings, classes = read_settings(args.model), read_labels(args.model)
    precision = Precision(args.precision, choose_device(args.device))
    model = load_pretrained(args.model, "image-classification", fresh_head=False).to(precision.device)
    if len(classes) != model.config.classes:
        raise WeightsError(f"{args.model}: {len(classes)} names for {model.config.classes} classes; fetch it again")
    best: list[tuple[str, float]] = []
    for name in args.images:  # one by one: without a crop their sizes may differ
        image = Images([Path(name)], np.zeros(1, np.int64), tuple(classes))
        with precision.autocast():
            probabilities = classify(model, image, settings, batch_size=1)[0].softmax(-1)
        best = likeliest(probabilities, classes)
        print(printable(name), *(f"{value:>8.1%}  {kind}" for kind, value in best), sep="\n", flush=True)
    if args.attention:
        picture = prepare_all(args.images, settings, quiet=True)  # (1, 3, H, W)
        maps = cls_attention(model, normalise(picture, settings).to(next(model.parameters()).device))
        plot_attention(picture[0], best, maps, Path(args.attention))
        print(f"what it looks at: {printable(args.attention)}")


if __name__ == "__main__":
    main()
