"""Reports and plots of networks that are not of this library, without their module."""

import matplotlib.image
import pytest

from aslp_jax.artefact import ArtefactError, embed, save
from aslp_jax.artefact.decoding import decode
from aslp_jax.artefact.encoding import encode, encode_tree
from aslp_jax.artefact.inspect import report
from aslp_jax.artefact.loading import load_unbound
from aslp_jax.artefact.plot import plot
from aslp_jax.cli.main import main
from tests.artefact.own import SOURCE, own, own_file


def test_a_report_needs_no_module(tmp_path, capsys):
    path = tmp_path / "own.aslp"
    save(own("linen")[1], path)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    for text in (
        "tiny, nets.py:TinyNet (classes=3,on=True,width=0.5), not of this library",
        f"source file of sha256 {SOURCE.sha256}",
        "6x5x2, bytes / 255; 3 classes",
        "cat, dog, bird",
        "by aslp on photos",
        "9 numbers in batch_stats, count",
        "times less than dense arrays",
        "weights regenerate: yes",
        "signed_constant",
    ):
        assert text in out, text
    rows = [line.split()[0] for line in out.splitlines() if "/kernel" in line]
    assert rows == ["stem/kernel", "depth/kernel", "a_head/kernel"]
    assert "loss depends on their product" not in out


def test_a_report_of_other_outputs_and_dtypes():
    out = report(decode(own_file("half")), verified=True)
    assert (
        "Halved, not of this library" in out and "6, bytes / 255; outputs of 6" in out
    )
    assert "not needed, the file stores all" in out
    out = report(decode(encode(embed(own("nnx")[1]))), verified=True)
    assert "numbers in state" in out and "layers/0/kernel" in out


def test_a_report_of_a_bare_pytree(tmp_path, capsys):
    layer = own("linen")[1].layers["stem/kernel"]
    path = tmp_path / "tree.aslp"
    save({"kernel": layer.weights}, path, masks={"kernel": layer.mask})
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "none: a bare pytree of arrays" in out and "not needed" in out
    assert f"{layer.kept / layer.weights.size:.2%}" in out
    assert main(["inspect", str(path), "--plot"]) == 2
    assert "holds a bare pytree; --plot needs a network" in capsys.readouterr().err
    out = report(decode(encode_tree({}, {})), verified=True)
    assert "0.000 bits a weight" in out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linen", "half"])
def test_a_plot_needs_no_module(kind, tmp_path):
    """With filters, and without where the first layer is no convolution."""
    path, png = tmp_path / "own.aslp", tmp_path / "own.png"
    save(own(kind)[1], path)
    plot(load_unbound(path), png)
    pixels = matplotlib.image.imread(png)
    assert pixels.shape[:2] > (600, 1200) and pixels.std() > 0.1


def test_a_plot_without_masks_is_refused(tmp_path):
    subnetwork = own("half")[1]
    layers = {
        name: layer for name, layer in subnetwork.layers.items() if layer.mask is None
    }
    with pytest.raises(ArtefactError, match="plot: the network has no masked array"):
        plot(
            type(subnetwork)(None, {}, layers, subnetwork.description, SOURCE), tmp_path
        )
