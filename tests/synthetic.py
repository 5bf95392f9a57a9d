"""Results tables with known laws: FID(C, N) with a best size per budget, prompt accuracies, costs, seeds and noise."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.evaluate.examples import Examples, save_examples
from bench.results.columns import COLUMNS, DECILES
from bench.results.folder import Results

LAWS = {  # offset, value at 1e17 FLOPs less the offset, exponent
    "diffusion": (0.5, 20.0, 0.50),
    "next-token": (1.0, 6.0, 0.25),
    "masked-token": (1.0, 10.0, 0.25),
    "mar": (0.5, 12.0, 0.35),
}
FAILURE_EXPONENTS = {"diffusion": 0.10, "next-token": 0.30, "masked-token": 0.20, "mar": 0.15}
COSTS = {
    "diffusion": (8e9, 90.0, 400.0),
    "next-token": (2e9, 160.0, 900.0),
    "masked-token": (4e9, 120.0, 600.0),
    "mar": (9e9, 300.0, 90.0),
}
"""FLOPs per sample, latency in ms, images per second."""
UNITS = {
    "diffusion": "squared velocity error per latent value",
    "next-token": "nats per token",
    "masked-token": "nats per hidden token",
    "mar": "squared prediction error per latent value",
}
AVERAGING_GAIN = {"diffusion": 1.5, "next-token": 1.1, "masked-token": 1.1, "mar": 1.2}


BUDGETS = np.logspace(17, 19.5, 6)
"""Six over 2.5 decades: the fewest that an exponent is fitted to."""
TRAINED = ("diffusion", "next-token")
BEST_SIZE = (1.2e6, 0.5)
"""Of `trained`: at 1e17 FLOPs, and its exponent."""


def seed_ladders(generator: np.random.Generator, deviations: np.ndarray, num_seeds: int, correlation: float) -> np.ndarray:
    """Gaussian noise (rungs, seeds) with a standard deviation per rung; any two rungs of a seed correlate equally."""
    shared, own = generator.standard_normal((1, num_seeds)), generator.standard_normal((len(deviations), num_seeds))
    return deviations[:, None] * (np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)


def sweep(
    generator: np.random.Generator, law: tuple[float, float, float], deviations: np.ndarray, correlation: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute, values and seeds (n,) of three seeds at BUDGETS: offset, value at 1e17 less the offset, exponent."""
    offset, scale, exponent = law
    clean = offset + scale * (BUDGETS / 1e17) ** -exponent
    values = clean[:, None] * np.exp(seed_ladders(generator, deviations, 3, correlation))
    return np.repeat(BUDGETS, 3), values.ravel(), np.tile(np.arange(3.0), len(BUDGETS))


def table(
    budgets: np.ndarray, *, num_sizes: int = 5, num_seeds: int = 3, noise: float = 0.02, seed: int = 0, raw: bool = True
) -> pd.DataFrame:
    """One validation, one averaged and one raw test row per run; the best size grows as the square root of the budget."""
    generator = np.random.default_rng(seed)
    rows = []
    for method, (offset, scale, exponent) in LAWS.items():
        for budget in budgets:
            best = 1e6 * np.sqrt(budget / 1e17)
            for size, shift in enumerate(np.linspace(-1.4, 1.4, num_sizes)):
                for replica in range(num_seeds):
                    jitter, other = np.exp(noise * generator.standard_normal(2))
                    fid = (offset + scale * (budget / 1e17) ** -exponent) * np.exp(0.15 * shift**2) * jitter
                    failure = 0.6 * (budget / 1e17) ** -FAILURE_EXPONENTS[method] * np.exp(0.1 * shift**2) * other
                    failure = min(failure, 0.95)  # far below these budgets the law leaves the possible range
                    flops, latency, speed = COSTS[method]
                    common = {
                        "run_id": f"{method}-{budget:.2e}-{size}-{replica}",
                        "method": method,
                        "paradigm": method,
                        "tokenizer": "autoencoder-kl@0" if method in ("diffusion", "mar") else "autoencoder-fsq@0",
                        "width": 64 * (size + 1),
                        "depth": 4,
                        "num_params": round(best * np.exp(shift)),
                        "seed": replica,
                        "flops_budget": budget,
                        "flops_spent": budget,
                        "images_seen": round(budget / best / 6 / np.exp(shift)),
                        "split": "test",
                        "tuned_for": "prompt_accuracy fid",
                        "num_samples": 5000,
                        "num_reference": 20_000,
                        "sample_seed": 0,
                        "protocol": "p",
                        "device": "cpu",
                        "dtype": "fp32",
                        "status": "done",
                        "flops_per_sample": flops,
                        "flops_per_sample_backbone": 0.7 * flops,
                        "flops_per_sample_head": 0.25 * flops,
                        "flops_per_sample_text": 0.05 * flops,
                        "flops_per_decode": 1e8,
                        "latency_ms_b1_p50": latency * other,
                        "images_per_s": speed / jitter,
                        "guidance": 1.5,
                        "temperature": 1.0,
                        "sampler_steps": 16,
                        "timestamp": "2026-01-01T00:00:00+00:00",
                        "clip_score": 0.9,
                        "clip_score_se": 0.01,
                    }
                    quality = {"fid": fid, "fid_se": 0.02 * fid, "kid": fid / 100, "kid_se": fid / 5000}
                    quality |= {"prompt_accuracy": 1 - failure, "prompt_accuracy_se": 0.005}
                    shown = {"fid": fid * 1.1, "prompt_accuracy": 1 - failure}
                    loss = {"validation_loss": fid**0.1, "validation_loss_se": 0.01 * fid**0.1, "loss_unit": UNITS[method]}
                    common |= loss | {"validation_images": 160}
                    hidden = dict.fromkeys(("latency_ms_b1_p50", "images_per_s", "tuned_for", "clip_score", "clip_score_se"))
                    rows.append({**common, **hidden, **shown, "split": "validation", "num_samples": 1000, "ema": True})
                    held_out = {f"prompt_accuracy_heldout{level}": 1 - 1.2 * failure for level in ("", "_one", "_both")}
                    held_out |= {f"{name}_se": 0.01 for name in held_out}
                    parts = {
                        f"prompt_accuracy_{name}": 1 - failure / 4 for name in ("count", "shape", "color", "size", "relation")
                    }
                    parts |= {name: 1 - failure * (0.5 + tenth / 20) for tenth, name in enumerate(DECILES)}
                    rows.append({**common, **quality, **held_out, **parts, "ema": True})
                    if raw:
                        rows.append({**common, **quality, **parts, "ema": False, "fid": fid * AVERAGING_GAIN[method] * other})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def trained(
    seed: int, noise: np.ndarray, correlation: float = 0.5, laws: Mapping[str, tuple[float, float, float]] = LAWS
) -> pd.DataFrame:
    """A table as sweeps leave them, of two methods whose FIDs follow laws: of a grid of sizes the five nearest to the best one
    of each budget, which grows as BEST_SIZE and lies between two of them; three seeds.

    A run's noise, with a standard deviation per budget, is shared by the rungs of its trunk (one size and seed), and by its
    validation and test rows, which add their own of two and one percent.
    """
    generator, parts = np.random.default_rng([seed, 11]), []
    grid = 1e6 * 2.0 ** np.arange(-6, 16)
    for method in TRAINED:
        offset, scale, exponent = laws[method]
        trunks = generator.standard_normal((len(grid), 3))
        for budget, deviation in zip(BUDGETS, noise, strict=True):
            best = BEST_SIZE[0] * (budget / 1e17) ** BEST_SIZE[1]
            near = np.sort(np.argsort(np.abs(np.log(grid / best)))[:5])
            size, replica = (v.ravel() for v in np.meshgrid(near, np.arange(3), indexing="ij"))
            own = generator.standard_normal(15)
            run = deviation * (np.sqrt(correlation) * trunks[size, replica] + np.sqrt(1 - correlation) * own)
            clean = (offset + scale * (budget / 1e17) ** -exponent) * np.exp(0.15 * np.log(grid[size] / best) ** 2)
            common = {
                "run_id": [f"{method}-{budget:.2e}-{i}-{j}" for i, j in zip(size, replica, strict=True)],
                "method": method,
                "paradigm": method,
                "width": 8 * (size + 8),
                "depth": 4,
                "num_params": grid[size],
                "seed": replica,
                "flops_budget": budget,
                "images_seen": budget / 6 / grid[size],
                "tuned_for": "prompt_accuracy fid",
                "protocol": "p",
                "status": "done",
                "ema": True,
                "fid_se": 0.01 * clean,
            }
            for split, error, factor in (("test", 0.01, 1.0), ("validation", 0.02, 1.1)):
                fid = factor * clean * np.exp(run + error * generator.standard_normal(15))
                parts.append(pd.DataFrame({**common, "split": split, "fid": fid}))
    return pd.concat(parts, ignore_index=True).reindex(columns=list(COLUMNS))


def write(folder: Path, frame: pd.DataFrame) -> Results:
    """A results folder with the table alone."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "experiment.json").write_text(json.dumps({"name": "synthetic", "budget": 3e19, "runs": {}}))
    return Results(folder)


HOSTILE = '<script>document.title="taken"</script>"><img src=x onerror=alert(1)>'
CAPTIONS = (
    "a small red circle",
    "a large blue square",
    HOSTILE,
    "a small black triangle",
    "a large red circle",
    "a small blue square",
)


def write_examples(results: Results, frame: pd.DataFrame) -> None:
    """Examples of every run of the first seed: gray squares; of the n-th run caption c is missed where 3 divides n + c."""
    runs = frame[frame["seed"] == 0].drop_duplicates("run_id")
    for number, run_id in enumerate(runs["run_id"]):
        obeyed = [(number + place) % 3 != 0 for place in range(len(CAPTIONS))]
        reasons = ["" if right else "one wrong color; seen: a small green circle" for right in obeyed]
        images = torch.full((len(CAPTIONS), 3, 16, 16), 40 + number % 100, dtype=torch.uint8)
        parts = [
            Examples(group, list(CAPTIONS[part]), images[part], images[part] + 100, obeyed[part], reasons[part])
            for group, part in (("known pairs", slice(0, 4)), ("held-out pairs", slice(4, 6)))
        ]
        folder = results.run_folder(run_id)
        folder.path.mkdir(parents=True)
        save_examples(parts, folder.examples)
