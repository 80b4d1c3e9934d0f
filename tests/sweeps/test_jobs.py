"""Jobs of a grid; their commands are tested in tests/cli/test_jobs.py."""

from aslp_jax.sweeps.jobs import split
from tests.sweeps.helpers import ASLP


def test_the_seeds_of_a_job_go_on_one_device():
    jobs = [(job.cell, list(job.seeds)) for job in split({ASLP: range(5)}, 2)]
    assert jobs == [(ASLP, [0, 1]), (ASLP, [2, 3]), (ASLP, [4])]
    alone = split({ASLP: [1, 4], "other": []}, 1)
    assert list(alone) == [(ASLP, [1]), (ASLP, [4])]
