"""Data set of a run: loaded, or its files found where they are streamed."""

from collections.abc import Callable

from aslp_jax._errors import BadInput
from aslp_jax._extras import require
from aslp_jax.data import datasets, streamed
from aslp_jax.data.names import IMAGENET, PREFIX
from aslp_jax.data.streamed import Streamed
from aslp_jax.trainer.options import Config, image_size

__all__ = ["load_dataset"]


def load_dataset(
    config: Config, note: Callable[[str], None] | None = None
) -> datasets.Dataset | Streamed:
    """Loads the data set of a run, or finds its files if the run is to stream them.

    Args:
      config: options.
      note: function that shows a message about the progress; None (default) shows
        nothing.

    Raises:
      BadInput: the data set is not available, or not the one that the options name.
      MissingExtra: a package is missing that the data set needs, or Grain to stream it.
    """
    # Only what reads this data set is imported.
    try:
        if _is_streamed(config):
            found = _find_streamed(config)
            # Only now: nobody should install it for images that cannot be streamed.
            require("grain", by="load: streaming of images")
            return found
        if config.data is not None:
            from aslp_jax.data import own

            return own.load(
                config.data,
                image_size=image_size(config),
                cache_dir=config.cache_dir,
                note=note or (lambda _: None),
            )
        if config.dataset.startswith(PREFIX):
            from aslp_jax.data import prepared

            return prepared.load(
                config.dataset,
                config.data_dir or "",
                image_size=image_size(config),
                cache_dir=config.cache_dir,
                note=note or (lambda _: None),
            )
        return datasets.load(
            config.dataset,
            data_dir=config.data_dir,
            manual_dir=config.manual_dir,
            cache_dir=config.cache_dir,
        )
    except (OSError, ValueError) as error:
        raise BadInput(str(error), page=_page_on_images(config)) from error


def _page_on_images(config: Config) -> str:
    if config.data is not None:
        return "docs/training.md#your-own-images"
    if config.dataset.startswith(PREFIX):
        return "docs/training.md#any-data-set-of-tfds"
    if config.dataset == IMAGENET:
        return "docs/training.md#imagenet"
    return "docs/training.md#data"


def _is_streamed(config: Config) -> bool:
    if config.stream is not None or not config.of_files:
        return bool(config.stream)
    if config.dataset == IMAGENET:
        return True
    from aslp_jax.data import stream_sources as sources

    size = image_size(config)
    if config.data is None:
        found = sources.prepared_size(config.dataset, config.data_dir or "", size)
    else:
        found = 0 if size is None else sources.folder_size(config.data, size)
    return found > streamed.STREAM_ABOVE


def _find_streamed(config: Config) -> Streamed:
    size, folder = image_size(config), config.data_dir or ""
    if config.dataset == IMAGENET:
        from aslp_jax.data import imagenet

        return imagenet.load(folder, image_size=size or imagenet.SIZE)
    if config.standardise:
        raise BadInput(
            "--standardise needs mean and deviation of all images, which are not "
            "measured where they are streamed; give --no-stream or --no-standardise",
            page="docs/training.md#data-larger-than-memory",
        )
    from aslp_jax.data import stream_sources as sources

    if config.data is None:
        try:
            return sources.open_prepared(config.dataset, folder, image_size=size)
        except ValueError as error:
            if config.stream:
                raise
            raise ValueError(
                f"{error} (more than {streamed.STREAM_ABOVE:,} bytes of images are "
                "streamed; --no-stream holds them in memory)"
            ) from error
    if size is None:
        raise BadInput(
            "--stream of --data needs a folder of images by class, and --image-size",
            page="docs/training.md#data-larger-than-memory",
        )
    return sources.open_folder(config.data, image_size=size)
