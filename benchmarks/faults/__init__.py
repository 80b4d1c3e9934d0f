"""Fault campaign: kills, signals, full disks, damaged and hostile files, two writers.

    python -m benchmarks.faults --minutes 60 --seed 1 --out results/faults

`campaign` draws tries from the kinds of fault in turn, `worker` makes them in a process
of its own, and `report` writes what was found. A kind of fault is one module or a part
of one: `processes` (kill -9, signals, small file systems), `writers`, `endurance`,
`archives`, `files` and `resumes` (damaged files), `artefacts`.
"""
