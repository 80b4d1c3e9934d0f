"""Kills the nodes of a Ray cluster under a grid, and compares its table.

    python -m benchmarks.cluster_kills --out results/cluster

A grid of digits is trained on this machine, and again on a cluster of two nodes of one
CPU each, of which one, chosen at random, is killed every 20 seconds until the grid is
finished; another node joins at once. Each kill ends the node's processes by SIGKILL.
Writes `kills.csv`, a line a kill, and `kills.json`. Exit code: 0; 1 if a run is lost,
counted twice or differs in a bit, or if there were fewer than ten kills.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aslp_jax.trainer.progress import humanise_seconds
from benchmarks.tables import read_csv, write_csv
from benchmarks.timing import Claim

GRID = ["table1", "--dataset", "digits", "--archs", "conv2", "--cells", "*-plain-*-sc"]
GRID += ["--methods", "aslp", "supermask"]
"""Command of the grid, of six cells."""

TIMES = {"seconds", "images_per_second"}
"""Keys and columns that no two runs have alike."""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="aslp-jax-kills-") as text:
        folder = Path(text)
        line = [*GRID, "--epochs", str(options.epochs), "--seeds", str(options.seeds)]
        line += ["--checkpoint-seconds", "0"]
        began = time.monotonic()
        _start(line, folder / "calm").wait()
        calm = time.monotonic() - began
        began = time.monotonic()
        kills, ended, printed = disturbed(line, folder / "killed", options)
        claims, facts = compare(folder / "calm", folder / "killed", kills, printed)
    for claim in claims:
        print(claim)
    print(f"{humanise_seconds(calm)} undisturbed, {humanise_seconds(ended)} killed")
    about = {
        "command": " ".join(["aslp-jax", *line, "--cluster", "ADDRESS"]),
        "seed": options.seed,
        "every_seconds": options.every,
        "nodes": options.nodes,
        "kills": len(kills),
        "seconds_undisturbed": round(calm),
        "seconds": round(ended),
        **facts,
    }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write(options.out, kills, about)
    return 0 if all(claim.met for claim in claims) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12, help="epochs of a run")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each cell")
    parser.add_argument("--nodes", type=int, default=2, help="nodes of one CPU")
    parser.add_argument("--every", type=float, default=20.0, help="seconds a kill")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice")
    parser.add_argument("--out", type=Path, help="folder of the results")
    return parser


def _start(line: Sequence[str], out: Path, *more: str, **options: Any) -> Any:
    command = [sys.executable, "-m", "aslp_jax", *line, "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """Yields a Ray cluster on this machine: a head that trains nothing, and nodes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            add_node(found)
        yield found
    finally:
        found.shutdown()


def add_node(found: Any) -> None:
    """Adds a node of one CPU to a cluster of this machine."""
    found.add_node(wait=False, num_cpus=1, object_store_memory=80 << 20)


def disturbed(
    line: Sequence[str], out: Path, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], float, list[str]]:
    """Trains a grid on nodes that are killed.

    Returns:
      A line for each kill; the time that the grid took, in seconds; and the lines that
      it printed.
    """
    choice, kills = random.Random(options.seed), []
    log = out.with_suffix(".log")
    with cluster(options.nodes) as found, open(log, "wb") as file:
        began = time.monotonic()
        grid = _start(line, out, "--cluster", found.address, stderr=file)
        due = began + options.every
        while grid.poll() is None:
            time.sleep(0.1)
            if time.monotonic() < due:
                continue
            due += options.every
            number = choice.randrange(len(found.worker_nodes))
            node = sorted(found.worker_nodes, key=lambda node: node.node_id)[number]
            begun, done = (
                {path.parent.name for path in out.glob(f"cells/*/{name}.json")}
                for name in ("config", "result")
            )
            found.remove_node(node, allow_graceful=False)
            add_node(found)
            kills.append(
                {
                    "second": round(time.monotonic() - began, 1),
                    "node": number,
                    "finished": len(done),
                    "in_training": " ".join(sorted(begun - done)),
                }
            )
        ended = time.monotonic() - began
    return kills, ended, log.read_text(encoding="utf-8").splitlines()


def compare(
    calm: Path, killed: Path, kills: Sequence[Any], printed: Sequence[str]
) -> tuple[list[Claim], dict[str, Any]]:
    """Compares the grid whose nodes were killed with the undisturbed one."""
    expected = {path.name: _run(path) for path in (calm / "cells").iterdir()}
    found = {path.name: _run(path) for path in (killed / "cells").iterdir()}
    tables = [(each / "table1.csv").read_bytes() for each in (calm, killed)]
    lines = [_rows(each / "runs.csv") for each in (calm, killed)]
    shown = [line for line in printed if line.startswith("run ")]
    configs = [
        json.loads((path / "config.json").read_text(encoding="utf-8"))
        for path in (killed / "cells").iterdir()
    ]
    resumed = sum(len(config.get("resumed", [])) for config in configs)
    differing = [name for name in expected if found.get(name) != expected[name]]
    repeated = len(shown) - len(expected) + len(lines[1]) - len(lines[0])
    claims = [
        Claim("nodes killed", len(kills), 10, least=True, unit="nodes"),
        Claim("runs lost", len(expected.keys() - found.keys()), 0, unit="runs"),
        Claim("runs counted twice", max(0, repeated), 0, unit="runs"),
        Claim("runs that differ", len(differing), 0, unit="runs"),
        Claim("tables that differ", int(tables[0] != tables[1]), 0, unit="tables"),
        Claim("lines of runs.csv that differ", _differ(*lines), 0, unit="lines"),
    ]
    facts = {claim.text.replace(" ", "_"): claim.value for claim in claims[1:]}
    about = {name: configs[0][name] for name in ("device", "commit", "versions")}
    return claims, {"runs": len(expected), **facts, "resumed": resumed, **about}


def _differ(left: Sequence[Any], right: Sequence[Any]) -> int:
    pairs = list(zip(left, right, strict=False))
    return sum(a != b for a, b in pairs) + abs(len(left) - len(right))


def _rows(file: Path) -> list[dict[str, str]]:
    return [
        {k: v for k, v in line.items() if k not in TIMES} for line in read_csv(file)
    ]


def _run(folder: Path) -> tuple[Any, ...]:
    """Returns all that a run computed: its result, its metrics and its network."""
    texts = [(folder / "result.json").read_text(encoding="utf-8")]
    texts += (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = [
        {name: value for name, value in json.loads(text).items() if name not in TIMES}
        for text in texts
    ]
    return (*values, (folder / "network.aslp").read_bytes())


def write(folder: Path, kills: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """Writes the results."""
    names = ("second", "node", "finished", "in_training")
    write_csv(folder / "kills.csv", kills, names)
    text = json.dumps(about, indent=2) + "\n"
    (folder / "kills.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
