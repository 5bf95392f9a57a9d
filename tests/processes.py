"""Processes of a running sweep, found by the system."""

import subprocess
from pathlib import Path


def children(pid: int) -> list[int]:
    command = ["ps", "-o", "pid=", "--ppid", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return [int(child) for child in found] + [grand for child in found for grand in children(int(child))]


def workers_of(pid: int) -> list[int]:
    """The worker processes of a launcher: what its server has forked."""

    def command_line(child: int) -> str:
        try:
            return Path(f"/proc/{child}/cmdline").read_text()
        except OSError:
            return ""

    servers = [child for child in children(pid) if "forkserver" in command_line(child)][:1]
    return [worker for server in servers for worker in children(server)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
