"""Names of datasets, which the options list without waiting for NumPy."""

NAMES = ("digits", "cifar10", "cifar100", "fashion_mnist", "tiny_imagenet")
"""Names of all datasets that `datasets.load` knows."""

IMAGENET = "imagenet"
"""Name of the dataset that `imagenet.load` finds."""

PREFIX = "tfds:"
"""Beginning of the names of datasets that `prepared.load` reads."""
