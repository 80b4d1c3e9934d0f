"""Streamed images: speed of the pipeline, cost to a step, memory over epochs.

    python -m benchmarks.streaming

Writes JPEG images of ImageNet's usual size into a temporary folder. Reads a data set
five times larger than the stated buffer (`pipeline.AHEAD` batches) for several epochs,
and takes the memory of the process at every batch. Then measures the images a second of
the pipeline alone, decoding and resizing on all cores, beside those of a training step;
and the same steps on streamed images and on images that are held on the device,
alternately. Exit code: 0; 1 if a bound is not met.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import PIL.Image

from aslp_jax.data import own, pipeline, stream_sources, streamed
from aslp_jax.data.datasets import Dataset
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_state import Run
from benchmarks.timing import Claim, Side, interleave, where

HEIGHT, WIDTH = 375, 500
"""Usual size of an image of ImageNet, in pixels."""

DISTINCT = 64
"""Number of images that are encoded; the others are links to them."""

TIMES_THE_BUFFER = 5
"""Images of the measurement of memory, over those of the stated buffer."""

PIPELINE_RATIO = 1.0
"""Least images a second of the pipeline alone, over those of a step."""

STEP_RATIO = 1.05
"""Most time of a step on streamed images, over that of a step and of reading in turn.

On a CPU both share the cores; elsewhere a step hides the reading.
"""

GROWTH = 1.0
"""Largest growth of the peak memory from the first epoch to the last, in buffers.

The allocator of C keeps a batch or two more or less, by the timing of the threads; all
images that were read would be ten buffers.
"""


def write_images(folder: Path, count: int) -> None:
    """Writes images of two classes, half of them each.

    Args:
      folder: folder of the class folders, created.
      count: number of images; one less if it is odd.
    """
    rng = np.random.default_rng(0)
    for label, kind in enumerate(("dark", "light")):
        (folder / kind).mkdir(parents=True)
        for index in range(count // 2):
            path = folder / kind / f"{index:06d}.jpg"
            if index >= DISTINCT // 2:
                os.link(folder / kind / f"{index % (DISTINCT // 2):06d}.jpg", path)
                continue
            coarse = rng.integers(0, 150, (12, 16, 3), np.uint8) + np.uint8(60 * label)
            smooth = PIL.Image.fromarray(coarse).resize((WIDTH, HEIGHT))
            noise = rng.integers(0, 45, (HEIGHT, WIDTH, 3), np.uint8)
            pixels = np.asarray(smooth) + noise
            PIL.Image.fromarray(pixels).save(path, quality=90)


def read_speed(part: streamed.Part, batch_size: int, images: int) -> float:
    """Returns the images a second of the pipeline alone, after its first batch.

    Args:
      part: images.
      batch_size: images of a batch.
      images: number of images to read.
    """
    batches = pipeline.batches(part, np.arange(images) % part.count, batch_size)
    next(batches)
    began, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch.labels)
    return count / (time.perf_counter() - began)


def peaks(part: streamed.Part, batch_size: int, epochs: int) -> list[float]:
    """Returns the largest memory of this process in each epoch, in MB.

    Args:
      part: images; all are read in each epoch, in another order, and go to the device.
      batch_size: images of a batch.
      epochs: number of epochs.
    """
    found = []
    for epoch in range(epochs):
        order, largest = np.random.default_rng(epoch).permutation(part.count), 0.0
        for batch in pipeline.batches(part, order, batch_size):
            jax.block_until_ready(jax.device_put(batch.images))
            largest = max(largest, resident_megabytes())
        found.append(largest)
    return found


def resident_megabytes() -> float:
    """Returns the memory of this process that is in use, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def side(config: Config, data: Dataset | streamed.Streamed, steps: int) -> Side:
    """Returns a side that takes `steps` more steps of a run, within an epoch.

    Args:
      config: options of the run.
      data: images.
      steps: steps of one call, at most those of an epoch.
    """
    run = Run(config, data)

    def take() -> None:
        if run.position.step + steps > run.steps:
            run.position.epoch, run.position.step = run.position.epoch + 1, 0
        run.take_steps(steps)
        if run.account(steps, 1.0) is not None:
            raise RuntimeError("the loss was not finite")

    return take


def measure(options: argparse.Namespace, folder: Path) -> list[Claim]:
    """Returns the claims, measured.

    Args:
      options: options of the command line.
      folder: empty folder.
    """
    buffer = pipeline.AHEAD * options.batch
    # A fifth of each class is held out to test.
    write_images(folder / "large", TIMES_THE_BUFFER * buffer * 5 // 4 + 1)
    size = (options.side, options.side)
    large = stream_sources.open_folder(folder / "large", image_size=size).train
    memory = peaks(large, options.batch, options.epochs)
    print(
        f"peak memory of each epoch: {', '.join(f'{each:.0f}' for each in memory)} MB"
    )

    write_images(folder / "small", options.step_images)
    config = Config(
        arch=options.arch,
        dataset="own",
        data=str(folder / "small"),
        image_size=str(options.step_side),
        batch_size=options.step_batch,
        devices=1,
    )
    size = (options.step_side, options.step_side)
    stream = stream_sources.open_folder(folder / "small", image_size=size)
    held = own.load(folder / "small", image_size=size, cache_dir=folder / "cache")
    sides = {
        "held": side(config, held, options.steps),
        "streamed": side(config, stream, options.steps),
    }
    seconds = interleave(sides, options.repeats)
    count = options.steps * options.step_batch
    stepped = count / seconds["held"]
    read = read_speed(stream.train, options.step_batch, options.read_images)
    decoded = f"{HEIGHT}x{WIDTH} JPEG to {options.step_side} pixels"
    return [
        Claim(
            f"pipeline alone {read:.0f} images/s ({decoded}), over the "
            f"{stepped:.1f} of a step of {options.arch}",
            read / stepped,
            PIPELINE_RATIO,
            least=True,
        ),
        Claim(
            f"a step on streamed images, {seconds['streamed'] / seconds['held']:.2f} "
            "times one on images held on the device, over that one and reading in turn",
            seconds["streamed"] / (seconds["held"] + count / read),
            STEP_RATIO,
        ),
        Claim(
            f"growth of the peak memory from epoch 1 to {options.epochs}, "
            f"{large.count} images of {options.side} pixels with a buffer of {buffer}",
            (memory[-1] - memory[0]) / (3e-6 * buffer * options.side**2),
            GROWTH,
            unit="buffers",
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="conv4", help="network of the steps")
    parser.add_argument("--step-side", type=int, default=64, help="its images, pixels")
    parser.add_argument("--step-batch", type=int, default=32, help="images of a step")
    parser.add_argument("--step-images", type=int, default=512, help="on the device")
    parser.add_argument("--steps", type=int, default=3, help="steps of one call")
    parser.add_argument("--repeats", type=int, default=5, help="counted calls a side")
    parser.add_argument("--read-images", type=int, default=2048, help="of the pipeline")
    parser.add_argument("--side", type=int, default=224, help="pixels, for memory")
    parser.add_argument("--batch", type=int, default=256, help="images, for memory")
    parser.add_argument("--epochs", type=int, default=3, help="for memory")
    options = parser.parse_args(arguments)
    print(f"{where()}, batches of {options.step_batch} and {options.batch}")
    with tempfile.TemporaryDirectory() as folder:
        claims = measure(options, Path(folder))
    for claim in claims:
        print(claim)
    return 0 if all(claim.met for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
