"""Chapter 9's first figure: what a linear classifier can tell from [CLS] after each block, pre-trained and random."""

import svg
import torch
import torch.nn.functional as F
from torch import Tensor

from minitransformer.vit import VitForImageClassification, initialise
from vision import demo
from vision.images import read_settings
from vision.predict import pixels
from weights import load_pretrained

COUNTS = {"train": 500, "valid": 300}
PENALTY = 30.0  # ridge regression's, on features of deviation 1
LEFT, BOTTOM, WIDTH, HEIGHT = 60, 262, 460, 220


def figure() -> str:
    trained, settings = load_pretrained("demo-deit", "image-classification"), read_settings("demo-deit")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random = VitForImageClassification(trained.config)
        initialise(random, std=0.05)
    sets = [demo.read("demo", part, count) for part, count in COUNTS.items()]
    pictures = [pixels(images, settings, trained.config.patch, torch.device("cpu")) for images in sets]
    labels = [torch.from_numpy(images.labels) for images in sets]
    shapes = [svg.text(LEFT - 30, 16, "Pictures of 100 that a linear classifier on [CLS] calls right", anchor="start")]
    for tick in range(0, 101, 25):
        y = BOTTOM - HEIGHT * tick / 100
        shapes += [svg.line([(LEFT, y), (LEFT + WIDTH, y)], svg.FAINT, 0.4)]
        shapes.append(svg.text(LEFT - 18, y, str(tick), anchor="end"))
    for name, model, colour in (("pre-trained", trained, svg.GREEN), ("random", random, svg.RED)):
        train, valid = (cls_after_blocks(model, batch) for batch in pictures)
        right = [100 * score(*both, *labels) for both in zip(train, valid, strict=True)]
        step = WIDTH / (len(right) - 1)
        points = [(LEFT + step * n, BOTTOM - HEIGHT * share / 100) for n, share in enumerate(right)]
        shapes.append(svg.line(points, colour, 2.5))
        shapes += [
            svg.text(x, y - 12, f"{share:.0f}", size=12, colour=colour)
            for (x, y), share in list(zip(points, right, strict=True))[1:]
        ]
        shapes.append(svg.text(LEFT + WIDTH + 16, points[-1][1], f"{name} blocks", anchor="start", colour=colour))
    shapes += [svg.text(LEFT + step * n, BOTTOM + 18, str(n)) for n in range(len(right))]
    shapes.append(svg.text(LEFT + WIDTH / 2, BOTTOM + 40, "blocks that [CLS] has gone through"))
    return svg.picture(LEFT + WIDTH + 170, BOTTOM + 56, *shapes)


@torch.no_grad()
def cls_after_blocks(model: VitForImageClassification, pictures: Tensor) -> list[Tensor]:
    """[CLS] after none, one, ... all blocks, each (B, C) and normalised."""
    x = model.eval().encoder.embeddings(pictures)
    found = [x[:, 0]]
    for block in model.encoder.blocks:
        x = block(x)
        found.append(x[:, 0])
    return [F.layer_norm(cls, cls.shape[1:]).double() for cls in found]


def score(train: Tensor, valid: Tensor, train_labels: Tensor, valid_labels: Tensor) -> float:
    """The share of `valid` that ridge regression on `train`, one number for each class, calls right."""
    mean, deviation = train.mean(0), train.std(0) + 1e-3
    train, valid = (F.pad((part - mean) / deviation, (0, 1), value=1.0) for part in (train, valid))
    wanted = F.one_hot(train_labels).double()
    weight = torch.linalg.solve(train.T @ train + PENALTY * torch.eye(train.size(1)).double(), train.T @ wanted)
    return ((valid @ weight).argmax(-1) == valid_labels).double().mean().item()


if __name__ == "__main__":
    svg.save(__file__, figure())
