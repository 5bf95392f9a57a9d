"""What a sweep ran on and with, for whoever wants to repeat it: environment.json. No path of this machine is in it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch

from bench.plan.machine import Machine, git_sha
from bench.processor import announced
from bench.registry import BUILT_INS, GROUP, targets

PACKAGES = "paradigm-bench torch torchvision lightning numpy scipy torch-fidelity transformers diffusers".split()
"""Those whose version may change a number."""
VECTOR_UNITS = frozenset("avx avx2 fma avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_tile asimd asimddp sve sve2".split())
"""Flags of processors that torch's kernels are chosen by; virtual machines often hide the processor's own name."""


def processor_kind() -> dict[str, str]:
    """What decides the last digit of a number: the kind of processor, of device, and the version of torch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    name, flags = announced()
    processor = " ".join([name or platform.machine(), *sorted(flags & VECTOR_UNITS)])
    return {"processor": processor, "device": device, "torch": torch.__version__}


def environment(machine: Machine, paradigms: Iterable[str]) -> dict[str, Any]:
    """The hardware, the packages, and every paradigm with the package and commit that it comes from."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "hardware": {
            **processor_kind(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": memory,
            "devices": machine.devices,
            "nodes": machine.nodes,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "python": platform.python_version(),
        "packages": packages,
        "commit": git_sha(),
        "plugins": {name: plugin(name) for name in sorted(set(paradigms))},
    }


def plugin(name: str) -> dict[str, str]:
    """Where a paradigm comes from: its class, the package with its version, and the commit; empty where it is not known."""
    known = {"target": targets().get(name, "")}
    if name in BUILT_INS:
        return {
            **known,
            "package": "paradigm-bench",
            "version": importlib.metadata.version("paradigm-bench"),
            "commit": git_sha(),
        }
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name == name and point.dist is not None:
            return {**known, "package": point.dist.name, "version": point.dist.version, "commit": _commit(point.dist)}
    return {**known, "package": "", "version": "", "commit": ""}


def _commit(package: Distribution) -> str:
    """The commit that a package was installed from, or that its folder is at; empty for one from an index or an archive."""
    written = package.read_text("direct_url.json")  # PEP 610
    if written is None:
        return ""
    found = json.loads(written)
    if "vcs_info" in found:
        return str(found["vcs_info"].get("commit_id", ""))
    address = urlparse(str(found.get("url", "")))
    return git_sha(Path(unquote(address.path))) if address.scheme == "file" and "dir_info" in found else ""
