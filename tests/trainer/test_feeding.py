"""Streamed images train as those on the devices do, and resume anywhere."""

import dataclasses
import io
import math
import shutil
import signal
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from aslp_jax import train
from aslp_jax._errors import BadInput
from aslp_jax.data import datasets, imagenet, own, stream_sources, streamed
from aslp_jax.trainer import loading, loop, session
from aslp_jax.trainer.feeding import Streaming
from aslp_jax.trainer.multi_seed import SeedBatch
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.progress import Progress
from aslp_jax.trainer.run_folder import RunFolder
from aslp_jax.trainer.run_state import Run
from aslp_jax.trainer.signals import Interrupted, Signals
from tests.data import imagenet_writer

OPTIONS = {"arch": "conv2", "batch_size": 4, "eval_samples": 2, "dataset": "own"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of 20 images of each of two classes: 29 to train on, 3 held out."""
    root, rng = tmp_path_factory.mktemp("feeding") / "photos", np.random.default_rng(0)
    for label, kind in enumerate(("cat", "dog")):
        (root / kind).mkdir(parents=True)
        for index in range(20):
            pixels = rng.integers(0, 150, (9, 11, 3), np.uint8) + np.uint8(100 * label)
            PIL.Image.fromarray(pixels).save(root / kind / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def resident(photos, tmp_path_factory) -> datasets.Dataset:
    return own.load(photos, image_size=(8, 8), cache_dir=tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="module")
def stream(photos) -> streamed.Streamed:
    return stream_sources.open_folder(photos, image_size=(8, 8))


@pytest.fixture(scope="module")
def natural(tmp_path_factory) -> streamed.Streamed:
    """Images in the layout of ImageNet: 29 to train on, 1 held out, 5 to test."""
    root = tmp_path_factory.mktemp("imagenet")
    imagenet_writer.write(root, {"train": 30, "validation": 5})
    return imagenet.load(root, image_size=(8, 8))


def sharding(devices: int) -> jax.sharding.Sharding:
    mesh = jax.make_mesh(
        (devices,),
        (train.BATCH,),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def taken(config: Config, data, *bounds: tuple[int, int, int], devices: int = 1):
    """Returns the batches of epoch and steps, as the programs would get them."""
    place, found = sharding(devices), []

    def note(state, totals, images, labels, key):
        assert images.sharding.shard_shape(images.shape)[0] == len(labels) // devices
        found.append((np.asarray(images), np.asarray(labels)))
        return state, totals

    programs = types.SimpleNamespace(batch_step=note)
    streaming = Streaming(config, data, place, place)
    totals = train.Totals.zeros()
    for each in bounds:
        streaming.take_steps(programs, None, totals, None, each)
    return found


@pytest.mark.parametrize("devices", [1, 4])
def test_the_batches_are_those_that_are_held_on_the_devices(
    stream, resident, devices
) -> None:
    config = Config(**OPTIONS, seed=3)
    found = taken(config, stream, (0, 0, 7), (1, 0, 7), devices=devices)
    chosen, _ = datasets.split(32, 3, seed=3)
    key = train.stream(jax.random.key(3), "train")
    for epoch in range(2):
        order = train.order(key, jnp.int32(epoch), 29)
        for step in range(7):
            rows = chosen[np.asarray(order)[4 * step : 4 * step + 4]]
            images, labels = found[7 * epoch + step]
            np.testing.assert_array_equal(images, resident.train_images[rows])
            np.testing.assert_array_equal(labels, resident.train_labels[rows])


def test_a_stream_may_begin_and_jump_anywhere(natural) -> None:
    config = Config(**OPTIONS)
    whole = taken(config, natural, (0, 0, 7), (1, 0, 7))
    parts = taken(config, natural, (1, 3, 5), (1, 5, 7), (0, 2, 4))
    for one, other in zip(parts, [*whole[10:14], *whole[2:4]], strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    # The same image has another crop in another epoch, and none without --augment.
    key = train.stream(jax.random.key(0), "train")
    orders = [list(np.asarray(train.order(key, jnp.int32(e), 29))[:28]) for e in (0, 1)]
    epochs = np.concatenate([images for images, _ in whole]).reshape(2, 28, 8, 8, 3)
    both = [row for row in orders[0] if row in orders[1]]
    crops = [epochs[e][[orders[e].index(row) for row in both]] for e in (0, 1)]
    assert (crops[0] != crops[1]).any((1, 2, 3)).all() and len(both) > 20
    plain = dataclasses.replace(config, augment=False)
    (images, _), *_ = taken(plain, natural, (0, 0, 1))
    assert (images != whole[0][0]).any((1, 2, 3)).all()


@pytest.mark.slow
def test_crops_of_the_stream_are_not_cropped_again(natural, stream) -> None:
    for data, cropped in ((natural, True), (stream, False)):
        run = Run(Config(**OPTIONS, devices=1), data)
        prepare = run.programs.batch_step.__wrapped__.keywords["prepare"]
        images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
        same = [
            np.array_equal(
                np.rint(255 * np.asarray(prepare(jax.random.key(each), images))), images
            )
            for each in range(3)
        ]
        assert all(same) == cropped


@pytest.mark.slow
def test_a_streamed_run_trains_and_scores_as_the_resident_one(stream, resident) -> None:
    config, runs = Config(**OPTIONS, devices=1), []
    for data in (resident, stream):
        runs.append(Run(config, data))
        runs[-1].take_steps(3)
    first, other = (jax.device_get((run.state, run.totals)) for run in runs)
    assert int(first[0].step) == 3 and int(first[1].correct) == int(other[1].correct)
    # Two programs, whose sums are rounded in another order.
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    variables = runs[0].state.variables
    scores = [run.images.score(run.programs, variables, None) for run in runs]
    np.testing.assert_allclose(*scores, rtol=1e-6)
    one, two = (
        run.images.evaluate(run.programs, variables, run.test_key, 2) for run in runs
    )
    assert one[:4] == two[:4] and one.thresholding > 0
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_that_stops_within_an_epoch_goes_on_bit_for_bit(natural, devices) -> None:
    config = Config(**OPTIONS, devices=devices)

    def finish(run: Run) -> list[np.ndarray]:
        run.take_steps(run.steps - run.position.step)
        run.account(run.steps - run.position.step, 1.0)
        run.finish_epoch(1.0)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(run.state)]

    first = Run(config, natural)
    expected = [finish(first), finish(first)][1]
    stopped = Run(config, natural)
    finish(stopped)
    stopped.take_steps(3)
    stopped.account(3, 1.0)
    snapshot = jax.device_get(stopped.snapshot())
    again = Run(config, natural)
    again.restore(snapshot)
    assert (again.position.epoch, again.position.step) == (1, 3)
    for one, other in zip(finish(again), expected, strict=True):
        np.testing.assert_array_equal(one, other)


class Reads:
    """Reader of images that raises SIGTERM once, and notes the images after it."""

    def __init__(self, read, wanted) -> None:
        self.read, self.wanted = read, set(wanted)
        self.armed, self.after = False, []

    def __call__(self, row: int):
        if row in self.wanted:
            if self.armed:
                self.armed = False
                self.after.clear()
                signal.raise_signal(signal.SIGTERM)
            self.after.append(row)
        return self.read(row)


@pytest.mark.slow
def test_a_stop_while_images_are_scored_is_noticed_at_the_next_batch(
    stream, photos, tmp_path
) -> None:
    config = options(photos, stream=True, devices=1, epochs=2)
    _, held_out = datasets.split(32, 16, config.seed)
    reads = Reads(stream.train.read, held_out), Reads(stream.test.read, range(8))
    parts = [
        dataclasses.replace(part, read=read)
        for part, read in zip((stream.train, stream.test), reads, strict=True)
    ]
    data = dataclasses.replace(stream, train=parts[0], test=parts[1], validation=16)

    def begin(name: str, *, resume: bool = False) -> session.Session:
        folder = tmp_path / name
        begun = session.begin(
            config,
            data,
            RunFolder(folder) if resume else RunFolder.new(folder, config),
            resume=resume,
            note=print,
        )
        # In many batches.
        begun.run.programs = dataclasses.replace(begun.run.programs, scored=1)
        return begun

    def train_on(begun: session.Session, signals: Signals) -> None:
        loop.train_sessions([begun], Progress(io.StringIO(), epochs=2), signals)

    whole = begin("whole")
    with Signals() as signals:
        train_on(whole, signals)
        expected = whole.finish(plot=False, report=False, check=signals.check)
    whole.close()

    first = begin("stopped")
    with pytest.raises(Interrupted, match="SIGTERM"), Signals() as signals:
        first.run.take_steps(4)
        first.run.account(4, 1.0)
        first.record(first.run.finish_epoch(1.0))
        reads[0].armed = True
        train_on(first, signals)
    # In an iterator's own threads, two batches are read ahead.
    assert len(reads[0].after) < 8
    assert first.place == (1, 4) and len(first.rows) == 1
    first.close()

    again = begin("stopped", resume=True)
    assert again.place == (1, 4)
    with pytest.raises(Interrupted, match="SIGTERM"), Signals() as signals:
        train_on(again, signals)
        reads[1].armed = True
        again.finish(plot=False, report=False, check=signals.check)
    assert len(reads[1].after) < 5
    assert not (tmp_path / "stopped" / "result.json").exists()
    speed, same = again.rows[-1].images_per_second, {"seconds": 0.0}
    assert math.isfinite(speed) and speed > 0
    for one, other in zip(again.rows, whole.rows, strict=True):
        alike = {**same, "images_per_second": 0.0}
        assert dataclasses.replace(one, **alike) == dataclasses.replace(other, **alike)
    found = again.finish(plot=False, report=False)
    assert dataclasses.replace(found, **same) == dataclasses.replace(expected, **same)
    again.close()


def test_an_image_that_cannot_be_read_ends_a_run_with_one_line(photos, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    for index in range(20):
        (root / "dog" / f"{index}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for index in range(20):
        shutil.copy(root / "cat" / "0.png", root / "dog" / f"a{index}.png")
    data = stream_sources.open_folder(root, image_size=(8, 8))
    with pytest.raises(
        BadInput, match=r"load: the image .*/dog/\d+.png cannot be read"
    ):
        taken(Config(**OPTIONS), data, (0, 0, 7))


def options(photos: Path, **changes) -> Config:
    given = {**OPTIONS, "data": str(photos), "image_size": "8", **changes}
    return Config(**given)


def test_large_images_are_streamed_by_themselves(photos, tmp_path, monkeypatch) -> None:
    config = options(photos, cache_dir=str(tmp_path))
    monkeypatch.setattr(streamed, "STREAM_ABOVE", 40 * 8 * 8 * 3)
    assert isinstance(loading.load_dataset(config), datasets.Dataset)
    monkeypatch.setattr(streamed, "STREAM_ABOVE", 40 * 8 * 8 * 3 - 1)
    assert isinstance(loading.load_dataset(config), streamed.Streamed)
    given = dataclasses.replace(config, stream=False)
    assert isinstance(loading.load_dataset(given), datasets.Dataset)
    assert stream_sources.folder_size(photos, (8, 8)) > streamed.STREAM_ABOVE


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_size": None}, "needs a folder of images by class, and --image-size"),
        ({"standardise": True}, "--standardise needs mean and deviation"),
        ({"data": "none"}, "load: there is no none; expected a folder"),
    ],
)
def test_what_cannot_be_streamed_is_one_line(
    photos, changes, message, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)  # nobody is told to install it
    with pytest.raises(BadInput, match=message):
        loading.load_dataset(options(photos, stream=True, **changes))


def test_data_streamed_by_itself_names_the_way_into_memory(
    tmp_path, monkeypatch
) -> None:
    folder = imagenet_writer.write(tmp_path, {"train": 4, "validation": 2, "test": 2})
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    monkeypatch.setattr(streamed, "STREAM_ABOVE", 0)
    monkeypatch.setitem(sys.modules, "grain", None)
    config = Config(dataset="tfds:imagenet2012", data_dir=str(tmp_path), image_size="8")
    with pytest.raises(BadInput, match=r"=array_record` .*; --no-stream holds"):
        loading.load_dataset(config)
    mended = r"prepare it by `tfds build --file_format=array_record`$"
    for changes in ({"stream": True}, {"dataset": "imagenet"}):
        with pytest.raises(BadInput, match=mended):
            loading.load_dataset(dataclasses.replace(config, **changes))


def test_streamed_runs_are_no_seed_batch(stream) -> None:
    runs = [Run(Config(**OPTIONS, seed=seed, devices=1), stream) for seed in range(2)]
    group = [session.Session(run, None, []) for run in runs]
    assert loop._one_program(group) == group[:1]
    with pytest.raises(TypeError, match="SeedBatch: images are streamed"):
        SeedBatch(runs)
