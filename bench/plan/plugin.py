"""Which code a plugin is: its package, version, source and commit."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.metadata import Distribution, entry_points
from pathlib import Path

from bench.plan.machine import git_sha
from bench.registry import BUILT_INS, GROUP, load

SUITE = {"bench", "paradigms"}
FOREIGN = {"torch", "numpy", "lightning", "transformers", "diffusers"} | set(sys.stdlib_module_names)
"""Packages that a plugin may inherit from and whose source is not its own."""
CODE = (".py", ".so", ".pyd", ".cu", ".cpp")


def plugin_identity(name: str) -> str:
    """Package, version and first 12 digits of the source's SHA-256; empty for a built-in.

    The source is every file of code of the packages that the class and its parents come from; what these import from elsewhere is
    not in it.

    Raises:
        ValueError: for a name that the registry does not know, or a class that cannot be imported.
    """
    if name in BUILT_INS:
        return ""
    files, digest = _source(name), hashlib.sha256()
    for path, inside in files:
        digest.update(f"{inside}\0".encode() + path.read_bytes() + b"\0")
    package = distribution(name)
    named = f"{package.name} {package.version}" if package else "unpackaged"
    return f"{named} {digest.hexdigest()[:12]}"


def plugin_commit(name: str) -> str:
    """The commit of a plugin's package: what pip was told when it was installed from version control, or that of its checkout,
    with "+" where files differ; empty for a built-in, and where neither is known."""
    if name in BUILT_INS:
        return ""
    package = distribution(name)
    told = json.loads((package.read_text("direct_url.json") if package else None) or "{}")
    if "vcs_info" in told:
        return str(told["vcs_info"]["commit_id"])[:12]
    path = _source(name)[0][0]
    known = subprocess.run(
        ["git", "-C", str(path.parent), "ls-files", "--error-unmatch", path.name], capture_output=True, check=False
    )
    return git_sha(path.parent) if known.returncode == 0 else ""


def distribution(name: str) -> Distribution | None:
    """The installed package that registers a plugin."""
    return next((point.dist for point in entry_points(group=GROUP, name=name)), None)


def _source(name: str) -> list[tuple[Path, str]]:
    """Files of a plugin's code, and their paths inside their packages, sorted by these."""
    found: dict[str, Path] = {}
    for parent in load(name).__mro__:
        top = parent.__module__.partition(".")[0]
        if top in SUITE | FOREIGN:
            continue
        file = getattr(sys.modules[top], "__file__", None) or sys.modules[parent.__module__].__file__
        assert file is not None, f"{parent} has no source"
        path = Path(file)
        if path.name != "__init__.py":
            found[path.name] = path
            continue
        for inside in path.parent.rglob("*"):
            if inside.suffix in CODE:
                found[f"{top}/{inside.relative_to(path.parent).as_posix()}"] = inside
    return sorted(((path, inside) for inside, path in found.items()), key=lambda each: each[1])
