"""Kernels of one magnitude, such as signed constants, as signs."""

import numpy as np

__all__ = ["signs"]


def signs(kernel: np.ndarray, name: str) -> tuple[np.ndarray, np.float32]:
    """Splits a kernel into signs and the one magnitude of its nonzero weights.

    Args:
      kernel: float32 array of any shape.
      name: name of the kernel, for the message.

    Returns:
      Signs, int8 in the shape of the kernel, each -1, 0 or 1; and the magnitude, which
      is 1 if all weights are 0.

    Raises:
      ValueError: the weights have several magnitudes.
    """
    magnitudes = np.unique(np.abs(kernel))
    magnitudes = magnitudes[magnitudes > 0]
    if len(magnitudes) > 1:
        raise ValueError(
            f"{name!r} has weights of {len(magnitudes)} magnitudes; signs can be "
            "stored for one magnitude only, as signed constants have"
        )
    magnitude = magnitudes[0] if len(magnitudes) else np.float32(1)
    return np.sign(kernel).astype(np.int8), magnitude
