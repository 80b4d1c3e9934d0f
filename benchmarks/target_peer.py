"""C of another generator, from the same network as ONNX, in the same firmware.

The generator is emx-onnx-cgen (`pip install emx-onnx-cgen`, in another environment).
"""

import subprocess
from pathlib import Path

from aslp_jax import export
from aslp_jax.artefact import Subnetwork

__all__ = ["write_peer"]

HEADER = """#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

#define NETWORK_IMAGE_BYTES {inputs}
#define NETWORK_CLASSES {classes}
typedef float network_logit;
void network_logits(const uint8_t image[NETWORK_IMAGE_BYTES],
                    network_logit logits[NETWORK_CLASSES]);

#endif
"""
SOURCE = """#include "network.h"
#include "model.c"

void network_logits(const uint8_t image[NETWORK_IMAGE_BYTES],
                    network_logit logits[NETWORK_CLASSES])
{
    model((const void *)image, (void *)logits);
}
"""


def write_peer(subnetwork: Subnetwork, folder: Path, program: str) -> str:
    """Writes `network.h` and `network.c` by the other generator.

    Values between layers lie on the stack, as ours lie in an array.

    Args:
      subnetwork: a network that takes images of one channel and gives classes.
      folder: folder of the files.
      program: the generator's command.

    Returns:
      Name and version of the generator.
    """
    description = subnetwork.description
    height, width, channels = description.image_shape
    if channels != 1:
        raise ValueError(
            f"write_peer: images must have one channel, as ONNX has its channels "
            f"first; got {channels}"
        )
    export.write(subnetwork, "onnx", folder / "model.onnx")
    command = [program, "compile", "model.onnx", "model.c", "--input-dim", "batch=1"]
    # Neither a heap nor a file of weights.
    command += ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    sizes = {"inputs": height * width, "classes": description.classes}
    (folder / "network.h").write_text(HEADER.format(**sizes))
    (folder / "network.c").write_text(SOURCE)
    python = Path(program).parent / "python"
    version = "import importlib.metadata as m; print(m.version('emx-onnx-cgen'))"
    done = subprocess.run(
        [python, "-c", version], check=True, capture_output=True, text=True
    )
    return f"emx-onnx-cgen {done.stdout.strip()}"
