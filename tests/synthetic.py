"""A results table with known laws: FID(C, N) with a best size per budget, prompt accuracies, costs, seeds and noise."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from bench.results.columns import COLUMNS
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
                    rows.append({**common, **quality, **held_out, **parts, "ema": True})
                    if raw:
                        rows.append({**common, **quality, **parts, "ema": False, "fid": fid * AVERAGING_GAIN[method] * other})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write(folder: Path, frame: pd.DataFrame) -> Results:
    """A results folder with the table alone."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "experiment.json").write_text(json.dumps({"name": "synthetic", "budget": 3e19, "runs": {}}))
    return Results(folder)
