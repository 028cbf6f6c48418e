"""A Slurm of one node on this machine, from Debian's packages, without systemd or munge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/daemon.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/daemon.log
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
START_S = 60.0


def missing() -> str:
    """Why there can be no Slurm here; nothing if there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root here"
    programs = [p for p in ("slurmctld", "slurmd", "sbatch", "srun") if shutil.which(p) is None]
    if programs:
        return f"no {programs[0]}: apt-get install -y slurmctld slurmd slurm-client"
    return ""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Slurm in a folder, until the context ends; the environment that its commands need."""
    folder.mkdir()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            host=host,
            folder=folder,
            cpus=os.cpu_count(),
            controller=free_port(),
            daemon=free_port(),
        )
    )
    env = {"SLURM_CONF": str(conf)}
    daemons = []
    try:
        for command in (["slurmctld", "-D", "-f", conf], ["slurmd", "-D", "-f", conf, "-N", host]):
            log = (folder / f"{command[0]}.out").open("w")
            daemons.append(subprocess.Popen(command, env=os.environ | env, stdout=log, stderr=log))
        deadline = time.monotonic() + START_S
        while "idle" not in asked(env, "sinfo", "-h", "-o", "%t"):
            assert time.monotonic() < deadline, (folder / "controller.log").read_text()[-2000:]
            time.sleep(0.5)
        yield env
    finally:
        asked(env, "scancel", "-f", "--state=RUNNING")
        asked(env, "scancel", "--state=PENDING")
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def asked(env: dict[str, str], *command: str) -> str:
    """What a command of Slurm says."""
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    return done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
