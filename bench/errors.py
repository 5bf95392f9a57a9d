"""What a user can mend, in one line; and the nearest allowed name."""

from __future__ import annotations

import difflib


class UserError(Exception):
    """Something that the user can mend, in one line."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says; empty when it says nothing."""
    return (str(error).splitlines() or [""])[0]


MAX_LISTED = 12


def did_you_mean(name: str, allowed: list[str]) -> str:
    """A question that offers the nearest allowed name; empty where none is near."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def nearest(name: str, allowed: list[str]) -> str:
    """The end of an error line: the nearest allowed name, if any, and the list, cut when it is long."""
    question = did_you_mean(name, allowed)
    hint = f"{question} " if question else ""
    shown, more = sorted(allowed)[:MAX_LISTED], len(allowed) - MAX_LISTED
    return f"{hint}known: {', '.join(shown)}" + (f" and {more} more" if more > 0 else "")
