"""All kinds of fault, in the order of a round."""

from benchmarks.faults import (
    archives,
    artefacts,
    endurance,
    files,
    processes,
    resumes,
    writers,
)

KINDS = (
    *endurance.KINDS,
    *processes.KINDS,
    *writers.KINDS,
    *resumes.KINDS,
    *archives.KINDS,
    *files.KINDS,
    *artefacts.KINDS,
)
