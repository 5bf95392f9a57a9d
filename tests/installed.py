"""What a test needs beside Python's packages: Debian has it, a machine may not."""

import os
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip for want of something that can be installed; in CI, which installs it, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, which .ci/run installs")
    pytest.skip(what)
