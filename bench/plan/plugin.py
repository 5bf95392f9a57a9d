"""Which code a plugin is: its package, version, source and commit."""

from __future__ import annotations

import json
import subprocess

from bench.plan.machine import git_sha
from bench.registry import BUILT_INS, distribution, load, source_files, source_identity


def plugin_identity(name: str) -> str:
    """Package, version and first 12 digits of the source's SHA-256; empty for a built-in.

    The source is every file of code of the packages that the class and its parents come from; what these import from elsewhere is
    not in it.

    Raises:
        ValueError: for a name that the registry does not know, or a class that cannot be imported.
    """
    return "" if name in BUILT_INS else source_identity(load(name), distribution(name))


def plugin_commit(name: str) -> str:
    """The commit of a plugin's package: what pip was told when it was installed from version control, or that of its checkout,
    with "+" where files differ; empty for a built-in, and where neither is known."""
    if name in BUILT_INS:
        return ""
    package = distribution(name)
    told = json.loads((package.read_text("direct_url.json") if package else None) or "{}")
    if "vcs_info" in told:
        return str(told["vcs_info"]["commit_id"])[:12]
    path = source_files(load(name))[0][0]
    known = subprocess.run(
        ["git", "-C", str(path.parent), "ls-files", "--error-unmatch", path.name], capture_output=True, check=False
    )
    return git_sha(path.parent) if known.returncode == 0 else ""
