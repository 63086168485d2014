"""Mirrored and moved pictures: every one that may come, and no other."""

from itertools import product

import torch

from vision.augment import flip_and_shift


def test_pictures_are_mirrored_and_moved_by_up_to_an_eighth_of_their_side():
    """A mark of three pixels, from left to right 1, 2, 3, in row 8 and from column 4 of pictures of 16 x 16."""
    torch.manual_seed(0)
    picture = torch.zeros(3, 16, 16, dtype=torch.uint8)
    picture[:, 8, 4:7] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    seen = set()
    for moved in flip_and_shift(picture.expand(1000, 3, 16, 16)):
        assert torch.equal(moved, moved[:1].expand_as(moved)), "the three channels move together"
        rows, columns = moved[0].nonzero(as_tuple=True)
        seen.add((rows.unique().item(), columns.min().item(), tuple(moved[0, rows, columns].tolist())))
    rows = range(8 - 2, 8 + 3)
    columns, mirrored_columns = range(4 - 2, 4 + 3), range(9 - 2, 9 + 3)  # mirrored, columns 4 to 6 are 9 to 11
    assert seen == {*product(rows, columns, [(1, 2, 3)]), *product(rows, mirrored_columns, [(3, 2, 1)])}
