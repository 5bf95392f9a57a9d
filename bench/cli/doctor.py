"""What this machine has and lacks: versions, devices, weights, caches, disk. Fetches and changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.processor import describe

PACKAGES = "paradigm-bench torch torchvision lightning fvcore torch-fidelity transformers diffusers datasets".split()
EXTRAS = {"open_clip": "open-clip", "wandb": "wandb"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for."""

    name: str
    found: str
    advice: str = ""
    """What to do where something is missing."""
    broken: bool = False
    """Whether nothing works without it."""


def examine() -> Iterator[Finding]:
    """Look at everything, the cheap first."""
    yield Finding("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    processor, advice = describe()
    yield Finding("processor", processor, advice)
    yield Finding("cores", str(len(os.sched_getaffinity(0))))
    for name in PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "", "install with `make setup`", broken=True)
    for module, extra in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        yield Finding(f"extra {extra}", "installed" if found else "", f"optional: pip install 'paradigm-bench[{extra}]'")
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError) as error:
        advice = "a CPU build of torch cannot load torchvision: install the pair that requirements.lock names"
        yield Finding("torchvision", f"does not import: {error}", advice, broken=True)
        return
    import torch

    yield Finding("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none, runs train on CPU")
    yield from _weights()
    yield from _caches()


def _weights() -> Iterator[Finding]:
    from bench.config.data import JudgeConfig
    from bench.data.open import WORLDS, open_data
    from bench.evaluate.pretrained import INCEPTION_URL, hub_file
    from bench.prepare.networks import own_networks

    for world in WORLDS:
        dataset = open_data(world)
        for network in own_networks(dataset):
            advice = f"`paradigm-bench prepare {world} --part {network}` makes them"
            yield Finding(f"weights {world} {network}", dataset.hash(network), advice)
    inception = hub_file(JudgeConfig().inception)
    yield Finding(
        "weights Inception", str(inception) if inception.is_file() else "", f"for FID of images: {INCEPTION_URL} at {inception}"
    )


def _caches() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    from bench.hub import cache_root
    from bench.progress import format_bytes

    for name, path in (("cache of data sets", cache_root()), ("Hugging Face cache", Path(HF_HUB_CACHE))):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else 0
        yield Finding(name, f"{path}, {format_bytes(size)}")
    yield Finding("free disk here", format_bytes(shutil.disk_usage(".").free))
