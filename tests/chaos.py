"""`make chaos`: a small sweep killed, interrupted, damaged and started twice for a bounded time, then compared with a calm one.

    python tests/chaos.py [MINUTES] [SEED]

Every few seconds one fault is injected: SIGKILL or SIGTERM to the launcher, SIGKILL to a worker, one bit flipped in a checkpoint
or the checkpoint cut, a second launcher on the same folder, a worker halted for a while wherever it writes, and the disk filled
for a while, which is a small tmpfs where this user may mount one. A launcher that ended is started again; a sweep that is
complete must equal the calm one row for row, and the next begins in an empty folder. Prints what was injected; exit status 1
for a difference.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from command_line import MINIATURE, Command, sweep_of
from miniature import SAME
from processes import workers_of

from bench.results.table import load_table

PAUSE_SECONDS = (0.1, 2.5)
STOP_SECONDS = 2.0
"""How long a write may be delayed, and a disk stay full."""
DISK_MEGABYTES = 96
MOST_LAUNCHERS = 8
KINDS = (
    *("launcher killed", "launcher terminated", "worker killed", "bit flipped", "checkpoint cut"),
    *("second launcher", "writes delayed", "disk filled"),
)


def begin(root: Path, **environment: str) -> Command:
    return Command(*sweep_of(MINIATURE, root, "--paradigms", "diffusion,next-token"), **environment)


def kill(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def damage(root: Path, chance: random.Random, cut: bool) -> bool:
    """Cut or change the newest checkpoint that is there."""
    found = sorted(root.rglob("*.ckpt"), key=lambda path: path.name)
    if not found:
        return False
    path = chance.choice(found)
    try:
        content = bytearray(path.read_bytes())
        if not content:
            return False
        place = chance.randrange(len(content))
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content[:place] if cut else content)
    except FileNotFoundError:
        return False
    return True


def inject(root: Path, launchers: list[Command], chance: random.Random) -> str:
    """One fault; empty when there was nothing to hit."""
    launcher = chance.choice(launchers)
    workers = workers_of(launcher.pid)
    kind = chance.choice(KINDS)
    if kind == "launcher killed":
        hit = kill(launcher.pid, signal.SIGKILL)
    elif kind == "launcher terminated":
        hit = kill(launcher.pid, signal.SIGTERM)
    elif kind == "worker killed":
        hit = bool(workers) and kill(chance.choice(workers), signal.SIGKILL)
    elif kind == "writes delayed":
        halted = [worker for worker in workers if kill(worker, signal.SIGSTOP)]
        time.sleep(chance.uniform(0, STOP_SECONDS))
        hit = bool([worker for worker in halted if kill(worker, signal.SIGCONT)])
    elif kind == "disk filled":
        hit = os.path.ismount(root.parent) and fill(root.parent, chance.uniform(0, STOP_SECONDS))
    elif kind == "second launcher":
        hit = len(launchers) < MOST_LAUNCHERS
        if hit:
            launchers.append(begin(root, PARADIGM_BENCH_CHECKPOINT_SECONDS="0.1"))
    else:
        hit = damage(root, chance, kind == "checkpoint cut")
    return kind if hit else ""


def fill(disk: Path, seconds: float) -> bool:
    """Leave no byte free for a while."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    time.sleep(seconds)
    ballast.unlink()
    return True


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs in a folder, or the folder itself where this user may not mount."""
    folder.mkdir()
    size = f"size={DISK_MEGABYTES}m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        print(f"no disk is filled: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def calm(folder: Path) -> pd.DataFrame:
    process = begin(folder)
    said = process.wait()
    assert process.poll() == 0, said
    return load_table(folder)[SAME]


def main(minutes: float, seed: int) -> int:
    chance, injected, equal = random.Random(seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "disk") as disk:
        expected = calm(Path(name) / "calm")
        deadline, number = time.monotonic() + 60 * minutes, 0
        while time.monotonic() < deadline:
            root, number = disk / str(number), number + 1
            launchers = [begin(root, PARADIGM_BENCH_CHECKPOINT_SECONDS="0.1")]
            while True:
                time.sleep(chance.uniform(*PAUSE_SECONDS))
                for launcher in [each for each in launchers if each.poll() is not None]:
                    launcher.wait()
                    launchers.remove(launcher)
                complete = (root / "table.csv").exists() and set(load_table(root)["status"]) == {"done"}
                if complete and not launchers:
                    break
                if not launchers:
                    launchers.append(begin(root, PARADIGM_BENCH_CHECKPOINT_SECONDS="0.1"))
                    continue
                if time.monotonic() < deadline and (kind := inject(root, launchers, chance)):
                    injected[kind] += 1
            try:
                pd.testing.assert_frame_equal(load_table(root)[SAME], expected)
            except AssertionError as error:
                print(f"sweep {number} differs after {dict(injected)}: {error}")
                return 1
            equal += 1
            shutil.rmtree(root)
            print(f"{equal} sweeps equal to the calm one after {sum(injected.values())} faults: {dict(injected)}", flush=True)
    print(f"{sum(injected.values())} faults injected and survived in {equal} sweeps: {dict(injected)}; seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
