"""Training step in plain PyTorch, the side to compare the library with.

Conv2, Conv4 and Conv6 on frozen signed-constant weights, masks by
`torch.nn.functional.gumbel_softmax` of the two classes (logit, 0) with hard samples,
one scale a layer, SGD with momentum: an implementation of the paper by PyTorch's own
functions, in PyTorch's fastest layout, channels last. A test can replace the mask
function, to compare results.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional

STAGES = {"conv2": (64,), "conv4": (64, 128), "conv6": (64, 128, 256)}
HIDDEN = (256, 256)
LOGIT_RATE, SCALE_RATE, MOMENTUM = 50.0, 1e-3, 0.9


def shapes(arch: str, side: int, channels: int, classes: int) -> list[tuple[int, ...]]:
    """Returns the shapes of all kernels, in PyTorch's order of axes.

    Args:
      arch: `"conv2"`, `"conv4"` or `"conv6"`.
      side: height and width of an image in pixels.
      channels: channels of an image.
      classes: number of classes.
    """
    found: list[tuple[int, ...]] = []
    for width in STAGES[arch]:
        for _ in range(2):
            found.append((width, channels, 3, 3))
            channels = width
        side //= 2
    units = channels * side * side
    for width in (*HIDDEN, classes):
        found.append((width, units))
        units = width
    return found


def signed_constant(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Samples Kaiming normal weights and replaces their magnitudes by their std."""
    fan_in = math.prod(shape[1:])
    weights = torch.randn(tuple(shape), generator=generator) * math.sqrt(2 / fan_in)
    return torch.sign(weights) * weights.std()


def gumbel_mask(logits: torch.Tensor) -> torch.Tensor:
    """Samples a mask of zeros and ones, with the gradient of the relaxed sample."""
    pair = torch.stack([logits, torch.zeros_like(logits)])
    return functional.gumbel_softmax(pair, tau=1.0, hard=True, dim=0)[0]


def crop_and_flip(images: torch.Tensor, pad: int = 4) -> torch.Tensor:
    """Shifts each image by up to `pad` pixels, filled with zeros, and mirrors half.

    Args:
      images: float `[batch, channels, height, width]`.
      pad: largest shift in pixels.
    """
    count, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device) + torch.randint(
        0, 2 * pad + 1, (count, 1), device=device
    )
    columns = torch.arange(width, device=device) + torch.randint(
        0, 2 * pad + 1, (count, 1), device=device
    )
    mirrored = torch.rand((count, 1), device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    each = torch.arange(count, device=device)[:, None, None]
    taken = padded[each, rows[:, :, None], columns[:, None, :]]
    return taken.permute(0, 3, 1, 2)


class Step:
    """Network with selected weights, and its training step.

    Attributes:
      weights: frozen kernels.
      logits: logits of each kernel, in its shape.
      scales: scale of each kernel, scalar.
    """

    def __init__(
        self,
        arch: str,
        *,
        side: int = 32,
        channels: int = 3,
        classes: int = 10,
        device: str = "cpu",
        dtype: str = "float32",
        mask: Callable[[torch.Tensor], torch.Tensor] = gumbel_mask,
    ) -> None:
        """Initialises the weights.

        Args:
          arch: `"conv2"`, `"conv4"` or `"conv6"`.
          side: height and width of an image in pixels.
          channels: channels of an image.
          classes: number of classes.
          device: device to train on.
          dtype: `"float32"`, or `"bfloat16"` under autocast.
          mask: function from logits to the mask of a step.
        """
        generator = torch.Generator().manual_seed(0)
        made = shapes(arch, side, channels, classes)
        self.weights = [signed_constant(each, generator).to(device) for each in made]
        self.logits = [
            torch.zeros_like(each, requires_grad=True) for each in self.weights
        ]
        self.scales = [
            torch.ones((), device=device, requires_grad=True) for _ in self.weights
        ]
        self._convolutions, self._mask = 2 * len(STAGES[arch]), mask
        self._autocast = torch.autocast(
            device, torch.bfloat16, enabled=dtype == "bfloat16"
        )
        self._optimiser = torch.optim.SGD(
            [
                {"params": self.logits, "lr": LOGIT_RATE},
                {"params": self.scales, "lr": SCALE_RATE},
            ],
            lr=LOGIT_RATE,
            momentum=MOMENTUM,
        )

    def outputs(self, images: torch.Tensor) -> torch.Tensor:
        """Returns class logits `[batch, classes]` of the network with new masks.

        Args:
          images: float `[batch, channels, height, width]`.
        """
        effective = [
            scale * (self._mask(logits) * weight)
            for scale, logits, weight in zip(
                self.scales, self.logits, self.weights, strict=True
            )
        ]
        x = images.contiguous(memory_format=torch.channels_last)
        for index, weight in enumerate(effective[: self._convolutions]):
            x = functional.relu(functional.conv2d(x, weight, padding=1))
            if index % 2:
                x = functional.max_pool2d(x, 2)
        x = x.flatten(1)
        *hidden, last = effective[self._convolutions :]
        for weight in hidden:
            x = functional.relu(functional.linear(x, weight))
        return functional.linear(x, last)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> Any:
        """Takes one step and returns the loss before it.

        Args:
          images: float `[batch, channels, height, width]`.
          labels: int64 `[batch]`.
        """
        self._optimiser.zero_grad(set_to_none=True)
        with self._autocast:
            outputs = self.outputs(images)
        loss = functional.cross_entropy(outputs.float(), labels)
        loss.backward()
        self._optimiser.step()
        return loss.detach()
