"""Sizes of the shared backbone, and the grid of them that every method of a ladder climbs. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of the shared backbone."""

    width: int
    depth: int
    num_heads: int

    @property
    def name(self) -> str:
        """Width and depth, as tables and figures show them."""
        return f"{self.width}x{self.depth}"


HEAD_WIDTH = 64
"""Of every size wider than SMALL_WIDTH (DiT-S, -B and -L, Peebles & Xie 2023, table 1)."""
SMALL_WIDTH = 96
SMALL_HEADS = {8: 2, 12: 2, 16: 2, 24: 2, 32: 2, 48: 2, 64: 2, 96: 3}
"""As in the experiments on two CPU cores: two heads up to width 64, three of 32 at 96."""
SHAPES = """
8x4 12x4 16x4 24x4 32x4 48x4 64x4 96x4 128x4 192x4 256x4 256x8 320x10 384x12 512x12 768x12 1024x12 1024x24 1152x28
1536x32 2048x36 2560x44 3584x48 5120x52 6144x72 8192x80 10240x96
""".split()
"""About twice the parameters from one to the next; depth rises slowly with width. 384x12, 768x12, 1024x24 and 1152x28 are DiT-S,
-B, -L and -XL (Peebles & Xie 2023, table 1); 8x4 and 12x4 keep the best size of the smallest budgets, 16x4, inside the grid."""


def size(width: int, depth: int) -> Size:
    """The size with the grid's number of heads.

    Raises:
        ValueError: for a width that the grid's rule has no heads for.
    """
    if width in SMALL_HEADS:
        return Size(width=width, depth=depth, num_heads=SMALL_HEADS[width])
    if width % HEAD_WIDTH or width <= SMALL_WIDTH:
        allowed = ", ".join(map(str, SMALL_HEADS))
        raise ValueError(f"width {width} is not on the grid of sizes; use {allowed}, or a multiple of {HEAD_WIDTH}")
    return Size(width=width, depth=depth, num_heads=width // HEAD_WIDTH)


GRID = tuple(size(*map(int, shape.split("x"))) for shape in SHAPES)
"""From a few thousand to 1.8e11 parameters, ascending."""
