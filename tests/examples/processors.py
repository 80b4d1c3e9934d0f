"""Programs around an exported network, compiled for a processor and run there."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.target_boards import missing_tools, outputs_of

MAIN = """
#include <stdio.h>
#include "network.h"
int main(void)
{
    static uint8_t image[NETWORK_IMAGE_BYTES];
    static network_logit logits[NETWORK_CLASSES];
    while (fread(image, sizeof image, 1, stdin) == 1) {
        network_logits(image, logits);
        fwrite(logits, sizeof logits, 1, stdout);
        putchar(network_class(image));
    }
    return 0;
}
"""
STRICT = ["-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion"]


class Processor(NamedTuple):
    """A way to compile a program and to run it."""

    compiler: str
    emulator: str = ""
    order: str = "<"
    flags: tuple[str, ...] = ("-std=c99",)


HOST = Processor("gcc")


class Outputs(NamedTuple):
    """Logits `[images, classes]` and classes `[images]`."""

    logits: np.ndarray
    classes: np.ndarray


def run(processor: Processor, folder: Path, images: np.ndarray) -> Outputs:
    """Compiles the network in a folder for a processor and runs it on images."""
    tools = [each for each in (processor.compiler, processor.emulator) if each]
    if missing := missing_tools(*tools):
        pytest.skip(missing)
    (folder / "main.c").write_text(MAIN)
    static = ["-static"] if processor.emulator else []
    command = [processor.compiler, *processor.flags, *STRICT, "-O2", *static]
    command += ["main.c", "network.c", "-o", "run", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    started = [each for each in (processor.emulator, str(folder / "run")) if each]
    done = subprocess.run(
        started, input=images.tobytes(), check=True, capture_output=True
    )
    number, count = outputs_of(folder / "network.h")
    given = number.newbyteorder(processor.order)
    found = np.frombuffer(done.stdout, [("logits", given, count), ("class", "u1")])
    return Outputs(found["logits"].astype(number), found["class"])
