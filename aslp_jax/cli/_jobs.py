"""Commands of the jobs of a grid, for a shell, Slurm and Kubernetes."""

import json
import math
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from aslp_jax._errors import BadInput
from aslp_jax._version import __version__
from aslp_jax.sweeps.command import without
from aslp_jax.sweeps.jobs import all_jobs
from aslp_jax.sweeps.sweep import Plan
from aslp_jax.trainer.run_folder import check_encoding

__all__ = ["FORMS", "PAGE", "written"]

PAGE = "docs/scaling.md#a-grid-with-slurm-or-kubernetes"
"""Page on jobs."""

_GRACE_SECONDS = 120
"""Time that a job gets to save its state before it is killed."""


_OWN_FLAGS = ("--print-jobs", "--out", "--cpus-per-run", "--gpus-per-run")
"""Flags that the command of a job does not repeat as they were given."""


def written(
    form: str, plan: Plan, arguments: Sequence[str], *, cpus: int, gpus: int
) -> str:
    """Returns the jobs of a grid as text.

    Args:
      form: one of `FORMS`.
      plan: the grid.
      arguments: command line of the grid, after the command's name.
      cpus: CPUs of a job.
      gpus: GPUs of a job.

    Raises:
      BadInput: the form needs another `--out`, or knows no `--minutes`.
    """
    check_encoding(plan.folder)
    folder = os.path.abspath(plan.folder)
    if form == "kubernetes":
        if not (plan.folder.is_absolute() and Path(folder).parents[1:]):
            raise BadInput(
                "--print-jobs kubernetes needs --out /VOLUME/FOLDER, the full path of "
                "a folder in a volume that all pods mount",
                page=PAGE,
            )
        if math.isfinite(plan.schedule.minutes):
            raise BadInput(
                "--minutes and --print-jobs kubernetes exclude each other: a job whose "
                "time is up would count as finished",
                page=PAGE,
            )
    kept = without(arguments, _OWN_FLAGS)
    command = ["aslp-jax", plan.table.name, *kept, "--out", folder]
    name = plan.folder.name or plan.table.name
    return FORMS[form](command, name, len(all_jobs(plan)), cpus, gpus)


def _shell(command: Sequence[str], name: str, jobs: int, cpus: int, gpus: int) -> str:
    line = shlex.join(command)
    return "".join(f"{line} --job {number}\n" for number in range(jobs))


def _slurm(command: Sequence[str], name: str, jobs: int, cpus: int, gpus: int) -> str:
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={_label(name)}",
        f"#SBATCH --array=0-{jobs - 1}",
        f"#SBATCH --cpus-per-task={cpus}",
        *([f"#SBATCH --gpus-per-task={gpus}", "#SBATCH --ntasks=1"] if gpus else []),
        "#SBATCH --output=%x-%A_%a.log --open-mode=append",
        "# A job saves its state before its time limit, and goes on if it is requeued.",
        f"#SBATCH --signal=B:TERM@{_GRACE_SECONDS} --requeue",
        f'exec {shlex.join(command)} --job "$SLURM_ARRAY_TASK_ID"',
    ]
    return "\n".join([*lines, ""])


def _kubernetes(
    command: Sequence[str], name: str, jobs: int, cpus: int, gpus: int
) -> str:
    folder = command[-1]
    limits = {"cpu": str(cpus), **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    # A pod expands $(NAME) in its command; $$ stands for $ itself.
    escaped = [word.replace("$", "$$") for word in command]
    words = [*escaped, "--job", "$(JOB_COMPLETION_INDEX)"]
    return f"""\
# Change the image, and the claim of a volume that all pods can write.
apiVersion: batch/v1
kind: Job
metadata:
  name: {_yaml(_label(name))}
spec:
  completionMode: Indexed
  completions: {jobs}
  parallelism: {jobs}
  backoffLimitPerIndex: 10
  podFailurePolicy:
    rules:
    - action: FailIndex  # bad input is not mended by another try
      onExitCodes:
        containerName: aslp-jax
        operator: In
        values: [2]
    - action: Ignore  # a pod that its node lost
      onPodConditions:
      - type: DisruptionTarget
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: {_GRACE_SECONDS}
      containers:
      - name: aslp-jax
        image: aslp-jax:{__version__}
        command: {_yaml(words)}
        resources:
          requests: {_yaml(limits)}
          limits: {_yaml(limits)}
        volumeMounts:
        - name: runs
          mountPath: {_yaml(os.path.dirname(folder))}
      volumes:
      - name: runs
        persistentVolumeClaim:
          claimName: runs
"""


FORMS: dict[str, Callable[[Sequence[str], str, int, int, int], str]] = {
    "shell": _shell,
    "slurm": _slurm,
    "kubernetes": _kubernetes,
}
"""Functions from command, name, number of jobs, CPUs and GPUs of one to a text."""


def _yaml(value: str | Sequence[str] | dict[str, str]) -> str:
    """Returns a value as YAML of ASCII: JSON, but for characters of two surrogates."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(
        c if c.isascii() and c.isprintable() else f"\\U{ord(c):08x}" for c in text
    )


def _label(name: str) -> str:
    """Returns a name as Kubernetes takes it: letters, digits and hyphens."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())
    return plain.strip("-")[:50].rstrip("-") or "aslp-jax"
