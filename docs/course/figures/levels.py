"""Chapter 11's figure: the weights of a group of 64, and the fifteen levels that 4 bits leave of them."""

import svg

from weights import load_pretrained
from weights.quantised import dequantise, quantise

GROUP, BITS = 64, 4
LEFT, WIDTH, MIDDLE = 20, 700, 96


def figure() -> str:
    matrix = load_pretrained("demo-bert-fa", "encoder").layers[0].ffn_up.weight.detach()
    row = matrix[:1, :GROUP]
    rounded = dequantise(quantise(row, BITS, GROUP), BITS)
    step = quantise(row, BITS, GROUP).scales[0, 0].item()
    widest = 1.05 * max(7 * step, row.abs().max().item())

    def across(value: float) -> float:
        return LEFT + WIDTH * (value + widest) / (2 * widest)

    shapes = [
        svg.text(LEFT, 14, "above: 64 weights; below: what 4 bits make of them; grey: the levels", anchor="start")
    ]
    for level in range(-7, 8):
        x = across(level * step)
        shapes += [svg.line([(x, 36), (x, 156)], svg.FAINT, 0.7), svg.text(x, 170, str(level), size=11)]
    for weight, level in zip(row[0].tolist(), rounded[0].tolist(), strict=True):
        shapes.append(svg.line([(across(weight), 40), (across(weight), MIDDLE - 26)], svg.BLUE, 1.2))
        shapes.append(svg.line([(across(weight), MIDDLE - 26), (across(level), MIDDLE + 26)], svg.FAINT, 0.5))
        shapes.append(svg.line([(across(level), MIDDLE + 26), (across(level), 152)], svg.ORANGE, 2))
    return svg.picture(2 * LEFT + WIDTH, 182, *shapes)


if __name__ == "__main__":
    svg.save(__file__, figure())
