"""Runners of exported networks, which also time one image at a time."""

import math
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

SECONDS = 0.2
"""Duration of each round of timing."""

MAIN = """
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "net.h"

/* Writes the logits of all images; then times as many runs as the first argument says,
   and prints the seconds of one run. */
int main(int count, char **arguments)
{
    static uint8_t image[NET_IMAGE_BYTES];
    float logits[NET_CLASSES];
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        net_logits(image, logits);
        fwrite(logits, sizeof logits, 1, stdout);
    }
    const int repeats = count > 1 ? atoi(arguments[1]) : 1;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int repeat = 0; repeat < repeats; repeat++) {
        net_logits(image, logits);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    fprintf(stderr, "%.9f", ((double)(end.tv_sec - begin.tv_sec) +
                             1e-9 * (double)(end.tv_nsec - begin.tv_nsec)) / repeats);
    return 0;
}
"""

Run = Callable[[np.ndarray, int], tuple[np.ndarray, float]]
"""Function from images and rounds of timing to logits and the seconds of one image."""


def run_onnx(content: bytes) -> Run:
    """Returns a runner of an ONNX model, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options)

    def run(images: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
        given = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        one = {"images": given[:1]}
        seconds = time_of(lambda: session.run(None, one), rounds)
        return session.run(None, {"images": given})[0], seconds

    return run


def run_stablehlo(content: bytes) -> Run:
    """Returns a runner of a function of `jax.export`."""
    call = jax.jit(jax.export.deserialize(bytearray(content)).call)

    def run(images: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
        one = jnp.asarray(images[:1])
        seconds = time_of(lambda: call(one).block_until_ready(), rounds)
        return np.asarray(call(images)), seconds

    return run


def run_c(folder: Path) -> Run:
    """Compiles the `net.c` in a folder and returns its runner."""
    (folder / "main.c").write_text(MAIN)
    command = ["gcc", "-std=c99", "-O3", "-o", "net", "main.c", "net.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)

    def program(given: bytes, repeats: int) -> tuple[bytes, float]:
        command = [str(folder / "net"), str(repeats)]
        done = subprocess.run(command, input=given, capture_output=True, check=True)
        return done.stdout, float(done.stderr)

    def run(images: np.ndarray, rounds: int) -> tuple[np.ndarray, float]:
        logits, once = program(images.tobytes(), 1)
        repeats = math.ceil(SECONDS / once)
        one = images[:1].tobytes()
        seconds = min((program(one, repeats)[1] for _ in range(rounds)), default=once)
        return np.frombuffer(logits, np.float32).reshape(len(images), -1), seconds

    return run


def time_of(call: Callable[[], Any], rounds: int) -> float:
    """Returns the seconds of a call, the shortest of several rounds."""

    def once(repeats: int) -> float:
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - began) / repeats

    call()
    seconds = once(1)
    repeats = math.ceil(SECONDS / seconds)
    return min((once(repeats) for _ in range(rounds)), default=seconds)


def object_size(folder: Path, compiler: Sequence[str]) -> tuple[int, int]:
    """Returns bytes of flash and RAM of the `net.c` in a folder, as a linker counts."""
    command = [*compiler, "-std=c99", "-c", "net.c", "-o", "net.o"]
    subprocess.run(command, cwd=folder, check=True)
    listed = subprocess.run(
        ["size", "net.o"], cwd=folder, check=True, capture_output=True, text=True
    )
    text, data, bss = map(int, listed.stdout.splitlines()[1].split()[:3])
    return text + data, data + bss
