"""What a sweep ran on and with, for whoever wants to repeat it: environment.json. No path of this machine is in it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from typing import Any

import torch

from bench.plan.machine import Machine, git_sha
from bench.plan.plugin import plugin_commit
from bench.processor import announced
from bench.registry import BUILT_INS, distribution, targets

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
        if version := _version(name):
            packages[name] = version
    commit = git_sha()
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
        "commit": commit,
        "plugins": {name: _plugin(name, commit) for name in sorted(set(paradigms))},
    }


def _version(package: str) -> str:
    """Of an installed package; empty where it is not, as the suite in a checkout that nobody installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _plugin(name: str, commit: str) -> dict[str, str]:
    """Where a paradigm comes from: its class, the package with its version, and the commit; empty where it is not known.

    Args:
        commit: of the suite.
    """
    known = {"target": targets().get(name, "")}
    if name in BUILT_INS:
        return {**known, "package": "paradigm-bench", "version": _version("paradigm-bench"), "commit": commit}
    package = distribution(name)
    found = {"package": package.name, "version": package.version} if package else {"package": "", "version": ""}
    return {**known, **found, "commit": plugin_commit(name)}
