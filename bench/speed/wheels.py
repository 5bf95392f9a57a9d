"""Install the wheels of a folder whose packages this Python lacks, beside it and without a network. No torch."""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
from pathlib import Path


def lacking(folder: Path) -> list[Path]:
    """The wheels of a folder whose packages are not installed, in the order of their names.

    Raises:
        ValueError: for a folder without wheels.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ValueError(f"WHEELS={folder} holds no wheels; `pip download` fills it where there is a network")
    return [wheel for wheel in wheels if not installed(wheel.name.partition("-")[0])]


def installed(package: str) -> bool:
    """Whether Python finds a package."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Install what is lacking into a folder that the caller has put on Python's path."""
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    try:
        found = lacking(options.folder)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if found:
        print(f"installing {', '.join(wheel.name.partition('-')[0] for wheel in found)}", file=sys.stderr, flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(options.target)]
        sys.exit(2 if subprocess.run([*pip, *map(str, found)], check=False).returncode else 0)


if __name__ == "__main__":
    main()
