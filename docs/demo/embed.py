"""Writes data.js: the artefact and the sample digits, for a page opened from a file.

A browser lets a page from `file://` fetch nothing, so the bytes come as a script. From
the root of a clone, `python docs/demo/embed.py` writes the script again. A test holds
the two to be equal.
"""

import base64
import textwrap
from pathlib import Path

import numpy as np

from aslp_jax.data import datasets

HERE = Path(__file__).parent
ARTEFACT = HERE.parents[1] / "examples" / "embedded" / "digits.aslp"
TARGET = HERE / "data.js"


def literal(content: bytes) -> str:
    """Returns bytes as a JavaScript string in base64, in lines of 88 letters."""
    lines = textwrap.wrap(base64.b64encode(content).decode(), 88)
    return "`" + "\n".join(lines) + "`"


def script() -> str:
    """Returns the text of data.js."""
    digits = datasets.load("digits")
    labels = np.asarray(digits.test_labels)
    samples = []
    for label in range(digits.classes):
        image = digits.test_images[np.flatnonzero(labels == label)[0]]
        samples.append(f"  {{ label: {label}, base64: {literal(image.tobytes())} }},")
    return "\n".join(
        [
            '"use strict";',
            "",
            "// Written by docs/demo/embed.py: examples/embedded/digits.aslp, and the",
            "// first test image of each digit.",
            "",
            "const ARTEFACT = {",
            f'  name: "{ARTEFACT.name}",',
            f"  base64: {literal(ARTEFACT.read_bytes())},",
            "};",
            "",
            "const SAMPLES = [",
            *samples,
            "];",
            "",
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(script())
