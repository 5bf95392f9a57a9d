"""A SLURM of one's own on this machine: Debian's packages, unpacked and not installed, with two nodes on the loopback.

One controller, two node daemons with two processors each, a partition `low` whose jobs are requeued when one of `high` wants
their place, no accounting, no authentication. It lives in one folder and dies with it.
"""

import getpass
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from bench.plan.machine import free_port

PACKAGES = (
    "slurmctld slurmd slurm-client slurm-wlm-basic-plugins libhwloc15 libmunge2 libjson-c5 libyaml-0-2 liblua5.1-0 libnuma1 "
    "libhttp-parser2.9 libjwt0 libfreeipmi17 libipmimonitoring6"
).split()
NODES = ("node1", "node2")


class UnavailableError(Exception):
    """Why there can be no SLURM here."""


def unpack(folder: Path) -> None:
    """Fetch and unpack the packages.

    Raises:
        UnavailableError: on a system without Debian's packages.
    """
    folder.mkdir(parents=True)
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not here")
    done = subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"SLURM's packages cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)


class Slurm:
    """Starts on entering, ends on leaving."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "packages" / "root"
        self.daemons: list[subprocess.Popen[bytes]] = []
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        self.environment = {
            **os.environ,
            "PATH": f"{self.root}/usr/bin:{self.root}/usr/sbin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/slurm-wlm",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def configuration(self) -> str:
        """slurm.conf."""
        state = self.folder / "state"
        state.mkdir()
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=4000 State=UNKNOWN"
            for name in NODES
        )
        return f"""ClusterName=private
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={free_port()}
SlurmUser={getpass.getuser()}
SlurmdUser={getpass.getuser()}
AuthType=auth/none
CredType=cred/none
PluginDir={self.root}/usr/lib/x86_64-linux-gnu/slurm-wlm
StateSaveLocation={state}
SlurmdSpoolDir={state}/%n
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/%n.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=5
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""

    def __enter__(self) -> "Slurm":
        unpack(self.folder / "packages")
        (self.folder / "slurm.conf").write_text(self.configuration())
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        sbin = self.root / "usr/sbin"
        step = sbin / "slurmstepd-wlm"
        commands = [
            [sbin / "slurmctld-wlm", "-D", "-c"],
            *([sbin / "slurmd-wlm", "-D", "-d", step, "-N", name] for name in NODES),
        ]
        for number, command in enumerate(commands):
            log = (self.folder / f"daemon{number}.log").open("wb")
            self.daemons.append(
                subprocess.Popen(
                    [str(part) for part in command], env=self.environment, stdout=log, stderr=log, start_new_session=True
                )
            )
        deadline = time.monotonic() + 60
        while self.ask("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D") != str(len(NODES)):
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                logs = [path.read_text(errors="replace")[-400:] for path in sorted(self.folder.glob("*.log"))]
                self.__exit__()
                raise UnavailableError(f"SLURM's daemons do not start here: {logs}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", "--user", getpass.getuser())
        for daemon in reversed(self.daemons):
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)

    def ask(self, *command: str) -> str:
        """What a SLURM command prints; empty when it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
