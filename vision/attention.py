"""What a ViT looks at: how [CLS], which is all that the classifier reads, shares out its attention over the patches."""

from pathlib import Path

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from torch import Tensor

from minitransformer.attention_weights import attention_weights
from minitransformer.dinov2 import ImageClassifier
from minitransformer.system import files
from minitransformer.system.errors import printable

rcParams["text.parse_math"] = False  # a class may be called $x
COLUMNS = 4  # panels beside one another
LONGEST_ROW = 6  # so many panels or fewer stand side by side: three heads
PANEL = 2.6  # inches of a side


def cls_attention(model: ImageClassifier, pixel_values: Tensor) -> Tensor:
    """The last block's weights from [CLS] to the patches of one image (1, 3, H, W): (heads, rows, columns).

    What a head's map lacks of 1 goes to [CLS] itself and, in DeiT, to the distillation token.
    """
    config = model.config
    rows = pixel_values.size(2) // config.patch
    weight = attention_weights(model, pixel_values)[-1, 0]  # (heads, T, T)
    return weight[:, 0, config.prefix :].unflatten(-1, (rows, -1)).cpu()


def plot_attention(picture: Tensor, best: list[tuple[str, float]], maps: Tensor, path: Path) -> None:
    """A PNG: the picture as the model sees it, its likeliest classes, then the picture under the model's attention, the
    mean of all heads and head by head.

    picture: (3, H, W) uint8; maps: (heads, rows, columns). Each panel's strongest red is its own highest weight.
    """
    height, width = picture.shape[1:]
    panels = [("mean of all heads", maps.mean(0)), *((f"head {n}", one) for n, one in enumerate(maps, 1))]
    columns = len(panels) + 2 if len(panels) + 2 <= LONGEST_ROW else COLUMNS
    rows = -(-(len(panels) + 2) // columns)
    size = columns * PANEL, rows * (PANEL * height / width + 0.5) + 0.4
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle("The likeliest classes, and what [CLS] looks at in the last block, by patch")
    places = figure.subplots(rows, columns).flat
    for axes in places:
        axes.axis("off")
    shown = picture.permute(1, 2, 0).numpy()  # (H, W, 3)
    places[0].imshow(shown)
    places[0].set_title("the picture\nas the model sees it", fontsize=9)
    places[1].axis("on")
    names, shares = [printable(name) for name, _ in best], [share for _, share in best]
    bars = places[1].barh(range(len(best)), shares, tick_label=names, color="#1f6fc4")
    places[1].bar_label(bars, [f"{share:.0%}" for share in shares], padding=2, fontsize=9)
    places[1].invert_yaxis()  # the likeliest on top
    places[1].set(xlim=(0, 1.25), xticks=[0, 0.5, 1])
    places[1].tick_params(labelsize=9)
    places[1].spines[["top", "right"]].set_visible(False)
    places[1].set_title("probability", fontsize=9)
    faint = (shown.mean(-1, keepdims=True).repeat(3, axis=-1) / 255 + 0.6) / 1.6  # grey, so that the red alone is red
    for axes, (name, weights) in zip(places[2 : 2 + len(panels)], panels, strict=True):
        heat = np.zeros((*weights.shape, 4))
        heat[..., 0] = 0.85
        heat[..., 3] = 0.85 * (weights / weights.max()).numpy()  # opaque where the weight is
        axes.imshow(faint)
        axes.imshow(heat, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
        axes.set_title(f"{name}\n{weights.sum():.0%} on patches, {weights.max():.0%} on one", fontsize=9)
    with files.replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
