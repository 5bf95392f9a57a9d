"""Several samples for each caption, of which one is kept: the best of n by the exact verifier or by the CLIP score.

Letters: S sets, K samples of a caption, n captions, d feature channels.

The verifier knows what was asked, so that its choice is the most that choosing can reach; a user has no such judge. The CLIP is
the network whose features FID compares, so that FID flatters its choice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench.config.experiment import Setting, merged
from bench.evaluate.evaluator import Evaluator
from bench.evaluate.fidelity import frechet_distance, frechet_with_error
from bench.evaluate.image_stream import ImageStream, Seen, look_at
from bench.evaluate.judge import cluster_error
from bench.evaluate.sampler import Sampler
from bench.evaluate.world_judge import WorldJudge
from bench.results.strategies import CLIP, KEEPERS, NO_CHOICE, VERIFIER

MOST_COUNTED = 64
"""Steps up to which a sampler's FLOPs are counted step by step: a step takes the counter up to .1 s."""


def counted_costs(evaluator: Evaluator, sampler: Sampler, setting: Setting) -> dict[str, float]:
    """`flops_per_sample` and `flops_per_decode` of a setting. Above MOST_COUNTED steps, of the sampler or of a head, the first
    is read off the line through two counts, since each step runs the same products."""

    def steps_of(changed: Setting) -> tuple[int, ...]:
        head = changed.options.get("head_options")
        within = head.get("steps") if isinstance(head, Mapping) else None
        return tuple(each for each in (changed.steps, within) if isinstance(each, int))

    def count(changed: Setting) -> dict[str, float]:
        found = evaluator.costs(sampler, changed)
        return {name: found[name] for name in ("flops_per_sample", "flops_per_decode")}

    most = max(steps_of(setting), default=0)
    if most <= MOST_COUNTED:
        return count(setting)

    def with_most(steps: int) -> dict[str, float]:
        if setting.steps == most:
            return count(replace(setting, steps=steps))
        return count(replace(setting, options=merged(setting.options, {"head_options": {"steps": steps}})))

    fewer, more = with_most(MOST_COUNTED // 2), with_most(MOST_COUNTED)
    per_step = (more["flops_per_sample"] - fewer["flops_per_sample"]) / (MOST_COUNTED // 2)
    return {**more, "flops_per_sample": more["flops_per_sample"] + per_step * (most - MOST_COUNTED)}


def strategy_rows(
    evaluator: Evaluator,
    sampler: Sampler,
    setting: Setting,
    costs: Mapping[str, float],
    split: str,
    num: int,
    numbers: Sequence[int],
) -> list[dict[str, Any]]:
    """One row for each keeper and number of samples, of the first num captions of "validation" or "test"; costs as
    `counted_costs` says them.

    `flops` is what an image costs that is kept: of the best of m by the verifier m times `flops_per_sample`, which leaves out
    decoding, as everywhere in the suite; by the CLIP also m decodings and m readings of an image and one of the caption.

    Raises:
        ValueError: where the data has no exact verifier.
    """
    began, judge = time.perf_counter(), evaluator.judge
    if not isinstance(judge, WorldJudge):
        raise ValueError("the best of several samples needs the exact verifier of a procedural world such as sprites40")
    seen = draw(judge, sampler, setting, split, num, max(numbers))
    common = {
        "run_id": sampler.run.run_id,
        "method": sampler.run.method,
        "paradigm": sampler.run.paradigm,
        "width": sampler.run.width,
        "depth": sampler.run.depth,
        "seed": sampler.run.seed,
        "flops_budget": sampler.run.flops_budget,
        **sampler.columns(setting),
        "split": split,
        "num_samples": num,
        "sample_seed": judge.sample_seed(split),
        "device": sampler.device,
        **costs,
    }
    rows = [
        {
            **common,
            "keeper": keeper,
            "candidates": number,
            "flops": flops_of_choice(judge, costs, keeper, number),
            **scores(judge, seen, keeper, number, split),
        }
        for number in numbers
        for keeper in ([NO_CHOICE] if number == 1 else KEEPERS)
    ]
    ending = {"protocol": judge.protocol, "evaluation_seconds": round((time.perf_counter() - began) / len(rows), 2)}
    return [{**row, **ending} for row in rows]


def flops_of_choice(judge: WorldJudge[Any], costs: Mapping[str, float], keeper: str, number: int) -> float:
    """FLOPs of drawing that many samples and keeping one of them, for one image."""
    sampling = number * costs["flops_per_sample"]
    if keeper != CLIP:
        return sampling
    image, caption = judge.clip.flops()
    return sampling + number * (costs["flops_per_decode"] + image) + caption


def draw(judge: WorldJudge[Any], sampler: Sampler, setting: Setting, split: str, num: int, number: int) -> Seen:
    """What the judges say of a number of samples for each of the first num captions: `exact` (K, n), `clip` (K, n) and `features`
    (K, n, d). The first of each caption are drawn first, so that one sample is what an evaluation draws."""
    captions = judge.captions(split, num)
    every = captions[np.tile(np.arange(num), number)]
    batches = sampler.batches(judge.tokens(every), setting, judge.sample_seed(split))
    seen = look_at(ImageStream(number * num, batches), [judge.verdicts(every), judge.clip_scores(every), judge.network.look])
    return {name: seen[name].reshape(number, num, *seen[name].shape[1:]) for name in ("exact", "clip", "features")}


def kept(seen: Seen, keeper: str, number: int) -> np.ndarray:
    """Which of K samples is kept of each set of that many of them: places (S, n), S = K // number.

    The verifier keeps the first that shows what was asked, or else the first; the CLIP keeps the highest score.
    """
    worth = seen["exact" if keeper in (NO_CHOICE, VERIFIER) else "clip"]
    sets = len(worth) // number
    groups = worth[: sets * number].reshape(sets, number, -1)
    return np.asarray(groups.argmax(1) + number * np.arange(sets)[:, None])


def scores(judge: WorldJudge[Any], seen: Seen, keeper: str, number: int, split: str) -> dict[str, Any]:
    """Prompt accuracy by the exact verifier and FID of what is kept, as means over the sets that the samples make: each FID is
    one of n images, so that it is biased alike for every number of samples.

    The error of an accuracy is clustered by caption; that of FID is the jackknife's at one set.
    """
    places = kept(seen, keeper, number)
    exact = np.take_along_axis(seen["exact"], places, 0).mean(0)
    images = np.arange(places.shape[1])
    features = [seen["features"][row, images] for row in places]
    reference = judge.reference_of(split)
    error = frechet_with_error(features[0], reference, None)[1]
    return {
        "num_sets": len(places),
        "prompt_accuracy": float(exact.mean()),
        "prompt_accuracy_se": cluster_error(exact, judge.clusters(judge.captions(split, len(images)))),
        "fid": float(np.mean([frechet_distance(found, reference) for found in features])),
        "fid_se": error,
        "fid_network": judge.network.name,
        "prompt_judge": "exact verifier",
    }
