"""The exercises of chapter 8: patches, and how many there are."""

import pytest
import torch
import torch.nn.functional as F

from minitransformer.vit import VitConfig


class Ours:
    @staticmethod
    def patches_of(picture, size):
        channels, height, width = picture.shape
        grid = picture.view(channels, height // size, size, width // size, size)
        return grid.permute(1, 3, 0, 2, 4).reshape(-1, channels * size * size)

    @staticmethod
    def token_count(height, width, size, distilled):
        if height % size or width % size:
            return None
        return (height // size) * (width // size) + (2 if distilled else 1)


@pytest.mark.parametrize(("height", "width", "size"), [(4, 4, 2), (6, 9, 3), (8, 4, 4)])
def test_patches_of(solution, height, width, size):
    picture = torch.arange(3 * height * width, dtype=torch.float32).view(3, height, width)
    wanted = F.unfold(picture[None], kernel_size=size, stride=size)[0].T
    assert torch.equal(solution("patches_of")(picture, size), wanted)


def test_token_count(solution):
    token_count = solution("token_count")
    for distilled in (False, True):
        assert token_count(224, 224, 16, distilled) == VitConfig(distilled=distilled).tokens
    assert token_count(32, 48, 16, False) == 7
    assert token_count(30, 48, 16, False) is None
