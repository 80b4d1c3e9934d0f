"""PyTorch's side of the comparison computes the same step as the library."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aslp_jax import ASLP, Masked, models
from aslp_jax.data import augment
from benchmarks import workload
from tests.benchmarks.test_workload import SIDE


def test_crops_and_flips_in_pytorch_keep_pixels_and_bring_in_zeros():
    torch = pytest.importorskip("torch", reason="the comparison needs PyTorch")
    from benchmarks import pytorch

    torch.manual_seed(0)
    images = torch.arange(1.0, 65.0).reshape(1, 1, 8, 8).expand(500, 2, 8, 8)
    shifted = pytorch.crop_and_flip(images, pad=2)
    assert shifted.shape == images.shape
    kinds = {tuple(each.flatten().tolist()) for each in shifted[:, 0]}
    assert len(kinds) == 5 * 5 * 2
    expected = set()
    padded = torch.nn.functional.pad(images[:1, :1], (2, 2, 2, 2))[0, 0]
    for row in range(5):
        for column in range(5):
            part = padded[row : row + 8, column : column + 8]
            expected |= {tuple(x.flatten().tolist()) for x in (part, part.flip(1))}
    assert kinds == expected


@pytest.mark.parametrize("arch", ["conv2", "conv4"])
def test_the_step_in_pytorch_is_ours(arch, key):
    torch = pytest.importorskip("torch", reason="the comparison needs PyTorch")
    from benchmarks import pytorch

    images, labels = workload.random_images(4, SIDE)
    # Half of the weights, the same on both sides, and the slope of the identity.
    theirs = pytorch.Step(
        arch,
        mask=lambda logits: (logits > 0).float() + logits - logits.detach(),
        side=SIDE,
    )
    model = Masked(models.NETWORKS[arch](classes=10), ASLP())
    inputs = augment.to_float(jnp.asarray(images))
    variables = jax.jit(model.init)(key, inputs)
    params, frozen = variables["params"], variables["frozen"]
    names = list(params["logits"])
    half = {
        name: jax.random.normal(jax.random.fold_in(key, index), leaf.shape)
        for index, (name, leaf) in enumerate(params["logits"].items())
    }
    flat = {
        name: np.asarray(each)
        for name, each in zip(names, jax.tree.leaves(frozen), strict=True)
    }
    assert [flat[name].shape for name in names] == [half[name].shape for name in names]

    def to_torch(array: np.ndarray) -> Any:
        order = (3, 2, 0, 1) if array.ndim == 4 else (1, 0)
        return torch.from_numpy(np.array(np.transpose(array, order)))

    made = pytorch.shapes(arch, SIDE, 3, 10)
    side = SIDE >> len(pytorch.STAGES[arch])
    for index, name in enumerate(names):
        for target, source in (
            (theirs.weights, flat[name]),
            (theirs.logits, half[name]),
        ):
            source = np.asarray(source)
            if name == "Dense_0/kernel":  # what is flattened lies in another order
                source = source.reshape(side, side, -1, source.shape[-1])
                source = source.transpose(2, 0, 1, 3).reshape(flat[name].shape)
            tensor = to_torch(source)
            assert tuple(tensor.shape) == made[index]
            target[index].data.copy_(tensor)

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    truth = torch.from_numpy(labels).long()
    kept = {**params, "logits": half}

    def loss(scales):
        outputs = model.apply(
            {"frozen": frozen, "params": {**kept, "scale": scales}}, inputs
        )
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return each.mean(), outputs

    (value, outputs), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        kept["scale"]
    )
    got = theirs.outputs(pixels).detach().numpy()
    np.testing.assert_allclose(got, outputs, rtol=1e-3, atol=1e-4)
    before = [scale.item() for scale in theirs.scales]
    assert float(theirs(pixels, truth)) == pytest.approx(float(value), rel=1e-4)
    # The first step of SGD moves by its rate times the gradient.
    for index, name in enumerate(names):
        moved = (before[index] - theirs.scales[index].item()) / pytorch.SCALE_RATE
        assert moved == pytest.approx(float(slopes[name]), rel=2e-2, abs=2e-3)
    assert all(logits.grad.abs().max() > 0 for logits in theirs.logits)


def test_masks_of_the_naive_form_are_zeros_and_ones():
    torch = pytest.importorskip("torch", reason="the comparison needs PyTorch")
    from benchmarks import pytorch

    logits = torch.zeros(10_000, requires_grad=True)
    mask = pytorch.gumbel_mask(logits)
    assert set(mask.detach().unique().tolist()) == {0.0, 1.0}
    assert abs(float(mask.detach().mean()) - 0.5) < 0.025
    mask.sum().backward()
    assert float(logits.grad.min()) > 0
