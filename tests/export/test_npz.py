"""npz files, read back by NumPy, hold the weights of the network."""

import io
import json
import zipfile

import jax
import numpy as np
import pytest

from aslp_jax import export
from aslp_jax.export import npz
from tests.export.networks import SMALL, small


def restore(file, name):
    """Follows the docstring of `npz.encode`."""
    if name in file:
        return file[name]
    weights = np.zeros(file[f"{name}/shape"], np.float32)
    kept = np.unpackbits(file[f"{name}/mask"], count=weights.size).astype(bool)
    weights[kept.reshape(weights.shape)] = file[f"{name}/values"]
    return weights


@pytest.mark.parametrize("storage", ["dense", "sparse"])
@pytest.mark.parametrize("name", SMALL)
def test_every_network_read_back_by_numpy(tmp_path, name, storage):
    path, subnetwork = tmp_path / "net.npz", small(name)
    export.write(subnetwork, "npz", path, storage=storage)
    with np.load(path, allow_pickle=False) as file:
        leaves = jax.tree_util.tree_flatten_with_path(subnetwork.variables)[0]
        for where, leaf in leaves:
            each = jax.tree_util.keystr(where, simple=True, separator="/")
            np.testing.assert_array_equal(restore(file, each), leaf)
            sparse = storage == "sparse" and each.endswith("kernel")
            assert (each not in file) == sparse
        about = json.loads(str(file["description"]))
    assert about["image_shape"] == [9, 8, 3] and about["mean"] == [0.5, 0.4, 0.3]


def test_sparse_is_smaller_and_the_same_each_time(digits_network):
    sizes = {
        storage: len(npz.encode(digits_network, storage=storage).content)
        for storage in ("dense", "sparse")
    }
    # Signed constants: a bit for a mask and one for a sign, deflated.
    assert sizes["sparse"] < sizes["dense"] < 4 * 367_680 / 7
    first = npz.encode(digits_network).content
    assert first == npz.encode(digits_network).content
    with zipfile.ZipFile(io.BytesIO(first)) as file:
        assert file.testzip() is None
