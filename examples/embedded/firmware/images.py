"""Writes the test images of digits for the firmware: each with its label, as bytes.

python images.py images.bin
"""

import sys
from pathlib import Path

import numpy as np

from aslp_jax.data import datasets

digits = datasets.load("digits")
count = len(digits.test_images)
images = digits.test_images.reshape(count, -1)
labels = digits.test_labels.reshape(count, 1).astype(np.uint8)
Path(sys.argv[1]).write_bytes(np.hstack([images, labels]).tobytes())
