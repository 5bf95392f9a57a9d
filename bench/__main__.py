"""The command line `paradigm-bench`: its entry, and every user's error as one line."""

from __future__ import annotations

import errno
import os
import sys

from bench.cli.parser import build_parser
from bench.errors import UserError
from bench.hub import forbid_downloads


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; a user's error is one line on standard error and exit status 2."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not getattr(options, "download", False):
        forbid_downloads()
    try:
        return int(options.stage(options) or 0)
    except (UserError, ValueError) as error:
        print(f"paradigm-bench: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        print(f"paradigm-bench: the disk is full{where}; make room, and the same command resumes", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("paradigm-bench: interrupted; the same command resumes", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
