"""What a test needs beside Python's packages: Debian has it, a machine may not."""

from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip for want of something that can be installed."""
    pytest.skip(what)
