"""Packages that an extra of aslp-jax installs, and the error where one is missing."""

import importlib.util

OPTIONAL = {
    "PIL": ("pillow", "data"),
    "array_record": ("array-record", "data"),
    "gcsfs": ("gcsfs", "cloud"),
    "grain": ("grain", "stream"),
    "importlib_resources": ("importlib_resources", "data"),
    "matplotlib": ("matplotlib", "train"),
    "onnx": ("onnx", "export"),
    "ray": ("ray", "cluster"),
    "requests": ("requests", "data"),
    "s3fs": ("s3fs", "cloud"),
    "tensorflow_datasets": ("tensorflow-datasets", "data"),
    "tensorboardX": ("tensorboardX", "tensorboard"),
    "tqdm": ("tqdm", "train"),
}
"""Package to install, and the extra that installs it, by name of the module."""


class MissingExtra(ImportError):
    """A package that an extra of aslp-jax installs is missing."""


def require(*modules: str, by: str) -> None:
    """Checks that optional packages are installed, and imports none of them.

    Args:
      *modules: names of modules, keys of `OPTIONAL`.
      by: the part of aslp-jax that needs the packages; begins the message.

    Raises:
      MissingExtra: a package is not installed. The message is one line, which names
        the package and the extra.
    """
    for module in modules:
        package, extra = OPTIONAL[module]
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(
                f'{by} needs the package {package}; pip install "aslp-jax[{extra}]"',
                name=module,
            )
