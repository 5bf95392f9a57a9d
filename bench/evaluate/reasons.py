"""Why the exact verifier refuses an image, in words.

Letters: n images.
"""

from __future__ import annotations

import numpy as np

from bench.data.shapes_world import ABSENT, ShapesConfig, ShapesWorld
from bench.evaluate.verifier import Components, Verdict, find_components


def reasons(world: ShapesWorld, images: np.ndarray, caption_ids: np.ndarray, verdict: Verdict) -> list[str]:
    """What is wrong and what is seen in images (n, 3, H, H) uint8 made for captions (n,); empty where the caption is obeyed."""
    found = find_components(world.config, images)
    objects, relation = world.caption_objects(caption_ids)
    num_named = (objects[:, :, 0] != ABSENT).sum(1)
    return [
        ""
        if verdict.exact[i]
        else f"{_wrong(world, verdict, i, int(num_named[i]), int(relation[i]))}; {_seen(world.config, found, i)}"
        for i in range(len(images))
    ]


def _wrong(world: ShapesWorld, verdict: Verdict, i: int, num_named: int, relation: int) -> str:
    """What does not hold; where objects are missing or too many, their number alone."""
    number = int(verdict.num_found[i])
    if number != num_named:
        return f"{number or 'no'} object{'' if number == 1 else 's'} in place of {num_named}"
    parts = []
    for name in ("shape", "color", "size"):
        missed = round((1 - float(verdict.attributes[name][i])) * num_named)
        if missed:
            parts.append(f"wrong {name}" if num_named == 1 else f"one wrong {name}" if missed == 1 else f"both {name}s wrong")
    if verdict.attributes["relation"][i] < 1:
        parts.append(f"not {world.config.relations[relation]}")
    return ", ".join(parts)


def _seen(config: ShapesConfig, found: Components, i: int) -> str:
    """The objects that the verifier finds, at most the two that it describes."""
    shown = min(int(found.count[i]), found.shape.shape[1])
    texts = []
    for slot in range(shown):
        shape, color, size = int(found.shape[i, slot]), int(found.color[i, slot]), int(found.size[i, slot])
        hue = "unclear" if color == ABSENT else config.colors[color]
        texts.append(f"something {hue}" if shape == ABSENT else f"a {config.sizes[size]} {hue} {config.shapes[shape]}")
    return f"seen: {', '.join(texts)}" if texts else "seen: nothing"
