"""Worker: makes tries in a process of its own, which may die without harm.

Reads a JSON line for each try and prints one for its outcome.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from benchmarks.faults.kinds import KINDS
from benchmarks.faults.tries import (
    WRONG,
    Failure,
    Kind,
    Outcome,
    Workshop,
    generator,
)


def make(kind: Kind, number: int, shop: Workshop, seed: int, folder: Path) -> Outcome:
    """Makes a try; its folder is deleted if all was as it should be.

    Args:
      kind: kind of fault.
      number: number of the try.
      shop: workshop.
      seed: seed of the campaign.
      folder: folder of the try, which is made.
    """
    folder.mkdir(parents=True)
    began = time.monotonic()
    try:
        about, found = (
            kind.attempt(shop, generator(seed, kind.name, number), folder),
            None,
        )
    except Failure as failure:
        about, found = str(failure), failure.found
    except Exception:  # a mistake of the campaign is seen, too
        about, found = f"the try itself: {traceback.format_exc()}", WRONG
    seconds = time.monotonic() - began
    if found is None:
        shutil.rmtree(folder)
    else:
        (folder / "failure.txt").write_text(f"{found}\n{about}\n", errors="replace")
    return Outcome(kind.name, number, round(seconds, 3), about, found)


def main() -> int:
    path, work, seconds, seed = sys.argv[1:]
    sys.argv[0] = "aslp-jax"  # lines of commands in this process begin with it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    # Ignored signals would stay ignored in the programs that tries start.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    shop = Workshop(Path(path), Path(work) / f"sound-{os.getpid()}", float(seconds))
    shop.sound.mkdir(parents=True)
    kinds = {kind.name: kind for kind in KINDS}
    for line in sys.stdin:
        asked = json.loads(line)
        name, number = asked["kind"], asked["number"]
        folder = Path(work) / f"{name}-{number}"
        outcome = make(kinds[name], number, shop, int(seed), folder)
        print(json.dumps(outcome.as_dict()), file=answers, flush=True)
    shutil.rmtree(shop.sound)
    return 0


if __name__ == "__main__":
    sys.exit(main())
