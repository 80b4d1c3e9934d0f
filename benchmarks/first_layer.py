"""Keep-probabilities of the first layer while a network learns, for the gallery.

    python -m benchmarks.first_layer --out results/first-layer

Trains Conv4 on digits with the recipe of the preset `fast` (12 epochs, batches of 16,
adam, cosine schedule, one-pixel crops) and writes `first_layer.npz`: at every 20th step
the keep-probability of each weight of the first layer, and the test accuracy of the
thresholded network. `python -m benchmarks.gallery` makes an animation of it.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aslp_jax import ASLP, Masked, evaluate, train
from aslp_jax.data import augment, datasets
from aslp_jax.optim import by_group
from benchmarks.seeds import network
from benchmarks.timing import where

FILE = "first_layer.npz"
LAYER = "Conv_0/kernel"


class Frame(NamedTuple):
    """State of the first layer at a step.

    Attributes:
      step: number of steps taken.
      accuracy: test accuracy of the thresholded network, in [0, 1].
      probabilities: keep-probabilities `[height, width, inputs, units]`.
    """

    step: int
    accuracy: float
    probabilities: np.ndarray


def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns images as floats, each shifted by up to one pixel."""
    return augment.to_float(augment.crop_and_flip(key, images, pad=1, flip=False))


def frames(
    arch: str, *, epochs: int, batch_size: int, every: int, seed: int
) -> Iterator[Frame]:
    """Trains a network and yields its first layer at the start and every few steps."""
    data = datasets.load("digits")
    chosen, _ = datasets.split(len(data.train_labels), data.validation, seed)
    images = jnp.asarray(data.train_images[chosen])
    labels = jnp.asarray(data.train_labels[chosen])
    steps = len(labels) // batch_size
    rate = optax.cosine_decay_schedule(0.5, steps * epochs)
    rules = {"logits": optax.adam(rate, b1=0.5), "scale": optax.adam(1e-3, b1=0.5)}
    net = network(arch, jax.default_backend())
    model = Masked(net, ASLP(scale_init=1.2, logit_std=10.0))
    optimiser = by_group(rules)
    run = train.compile_steps(
        batch_size=batch_size, prepare=prepare, model=model, optimiser=optimiser
    )
    key = jax.random.key(seed)
    state = train.create(model, optimiser, key, augment.to_float(images[:1]))
    totals = train.Totals.zeros()
    for step in range(0, steps * epochs, every):
        yield _frame(state, model, data)
        epoch, start = divmod(step, steps)
        stop = min(start + every, steps)
        bounds = (jnp.asarray(number, jnp.int32) for number in (epoch, start, stop))
        state, totals = run(state, totals, images, labels, key, *bounds)
    yield _frame(state, model, data)


def _frame(state: train.TrainState, model: Masked, data: datasets.Dataset) -> Frame:
    accuracy, _ = evaluate.score(
        state.variables,
        jnp.asarray(data.test_images),
        jnp.asarray(data.test_labels),
        model=model,
        prepare=augment.to_float,
    )
    found = model.method.keep_probabilities(state.frozen, state.params)[LAYER]
    return Frame(int(state.step), float(accuracy), np.asarray(found))


def write(found: Sequence[Frame], path: Path) -> None:
    """Writes frames as one small file, keep-probabilities in 255ths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        step=np.array([frame.step for frame in found], np.int32),
        accuracy=np.array([frame.accuracy for frame in found], np.float32),
        keep=np.array(
            [np.rint(255 * frame.probabilities) for frame in found], np.uint8
        ),
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the file")
    parser.add_argument("--arch", default="conv4")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--every", type=int, default=20, help="steps between frames")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(where())
    found = []
    for frame in frames(
        options.arch,
        epochs=options.epochs,
        batch_size=options.batch_size,
        every=options.every,
        seed=options.seed,
    ):
        found.append(frame)
        kept = np.mean(frame.probabilities > 0.5)
        print(f"step {frame.step:>5}: kept {kept:.1%}, accuracy {frame.accuracy:.1%}")
    write(found, options.out / FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
