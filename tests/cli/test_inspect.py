"""`aslp-jax inspect`: size, sparsity, integrity, and a plot."""

import dataclasses
import io
import sys
from typing import Any

import jax
import matplotlib.image
import numpy as np
import pytest

import aslp_jax
from aslp_jax import artefact
from aslp_jax.artefact import container, encoding
from aslp_jax.cli.main import main


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["signed", "normal"])
def test_the_report_is_that_of_the_network(kind, request, capsys):
    path = request.getfixturevalue(kind)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    subnetwork = aslp_jax.load(path)
    layers = subnetwork.layers.values()
    weights = sum(each.weights.size for each in layers)
    size = path.stat().st_size
    about = subnetwork.description
    masked = [each for each in layers if each.mask is not None]
    fractions = [each.kept / each.weights.size for each in masked]
    entropy = sum(
        -each.weights.size * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
        for each, p in zip(masked, fractions, strict=True)
    )
    for text in (
        f"{about.arch} (ConvNet), computes in float32",
        "x".join(map(str, about.image_shape)),
        f"by {about.method} on {about.dataset}, seed 0",
        f"{about.accuracies['thresholding']:.2%} thresholding",
        f"jax {about.versions['jax']}",
        f"{size:,} bytes, {8 * size / weights:.3f} bits a weight",
        f"{4 * weights / size:.1f} times less than float32 ({4 * weights:,} bytes)",
        f"{int(np.ceil(entropy / 8)):,} bytes by their entropy",
        "checksum ok, weights regenerate: yes",
    ):
        assert text in out, text
    assert ("standardised by channel" in out) == (kind == "normal")
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    for layer, fraction in zip(masked, fractions, strict=True):
        row = lines[layer.name]
        assert row[1:4] == [
            f"{layer.weights.size:,}",
            f"{fraction:.2%}",
            f"{layer.scale:.4f}",
        ]
        assert row[5] == layer.recipe.initialiser
    kept = sum(each.kept for each in masked) / sum(each.mask.size for each in masked)
    assert lines["total"][1:3] == [f"{weights:,}", f"{kept:.2%}"]
    assert max(map(len, out.splitlines())) <= 88
    # The layers in the order in which they are called, then those without a mask.
    names = [line.split()[0] for line in out.splitlines() if "/kernel" in line]
    assert names == sorted(names) and len(names) == len(masked)
    assert ("5 without a mask" in out) == (kind == "normal")
    # Without biases, equal scales are explained.
    assert ("loss depends on their product alone" in out) == (kind == "signed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [("signed", None), ("normal", "another.png")]
)
def test_the_plot_is_a_png(kind, name, request, tmp_path, capsys):
    path = tmp_path / "network.aslp"
    subnetwork = aslp_jax.load(request.getfixturevalue(kind))
    about = dataclasses.replace(subnetwork.description, arch=r"$\no formula$")
    artefact.save(dataclasses.replace(subnetwork, description=about), path)
    png = tmp_path / (name or "network.png")
    output = [] if name is None else ["-o", str(png)]
    assert main(["inspect", str(path), "--plot", *output]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"\n{png}: {png.stat().st_size:,} bytes\n")
    assert sorted(tmp_path.iterdir()) == sorted([path, png])
    pixels = matplotlib.image.imread(png)
    assert pixels.shape[:2] > (600, 1200) and pixels.std() > 0.1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("inspect NOWHERE", "cannot read NOWHERE: No such file or directory"),
        ("inspect RUN", "cannot read RUN: Is a directory"),
        ("inspect RUN/config.json", "RUN/config.json is no artefact"),
        ("inspect DAMAGED/network.aslp", "its checksum does not match"),
        ("inspect RUN/network.aslp -o new", "--output names the PNG of --plot"),
        ("inspect RUN/network.aslp --plot -o NOWHERE/new", "cannot write NOWHERE/new"),
        ("inspect RUN/network.aslp --plot -o LINK", "LINK is the input file"),
        ("inspect NAMED.png --plot", "NAMED.png is the input file"),
    ],
)
def test_bad_input_is_one_line(line, words, refused):
    refused(line, words)


@pytest.mark.slow
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("kind", ["signed", "normal"])
def test_weights_of_another_sha256_are_reported(
    kind, embedded, request, tmp_path, capsys
):
    subnetwork = aslp_jax.load(request.getfixturevalue(kind))
    if embedded:
        subnetwork = artefact.embed(subnetwork)
    version, header, body = container.unpack(encoding.encode(subnetwork))
    (array,) = (each for each in header["arrays"] if each["name"] == "Conv_1/kernel")
    array["sha256"] = "0" * 64
    path = tmp_path / "other.aslp"
    path.write_bytes(container.pack(version, header, [bytes(body)]))
    assert main(["inspect", str(path), "--plot"]) == 2
    out, err = capsys.readouterr()
    assert "checksum ok, weights regenerate: NO" in out and "Conv_1/kernel" in out
    words = "has 'Conv_1/kernel' with weights of another sha256"
    if kind == "normal" and not embedded:
        words = f"cannot be used here: jax {jax.__version__}"
        assert "'Conv_1/kernel'" in err and "--embed-weights" in err
    assert err.startswith(f"aslp-jax: {path} {words}")
    assert err.count("\n") == 1 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MemoryError("Unable to allocate 1 GiB"),
            "out of memory: Unable to allocate 1 GiB",
        ),
        (MemoryError(), "out of memory: an allocation failed"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 GiB\nin the heap"),
            "JAX cannot do this here: RESOURCE_EXHAUSTED: 1 GiB\n",
        ),
        (RuntimeError("a mistake of the program"), None),
        (AssertionError("a mistake of the program"), None),
    ],
)
def test_limits_of_a_machine_are_one_line_and_no_mistake_is_hidden(
    error, words, signed, monkeypatch, capsys
):
    def fail(contents: Any) -> None:
        raise error

    monkeypatch.setattr("aslp_jax.artefact.decoding.assemble", fail)
    if words is None:
        with pytest.raises(type(error), match="a mistake of the program"):
            main(["inspect", str(signed)])
        return
    assert main(["inspect", str(signed)]) == 2
    page = "docs/what_can_go_wrong.md#output-disk-or-device-fails"
    assert capsys.readouterr() == ("", f"aslp-jax: {words.strip()}; see {page}\n")


def test_a_terminal_of_few_characters_is_no_bad_input(signed, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(["inspect", str(signed)]) == 0
    terminal.flush()
    assert b"signed_constant ?0.0" in terminal.buffer.getvalue()


def test_without_matplotlib_the_extra_is_named(signed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    png = tmp_path / "a.png"
    assert main(["inspect", str(signed), "--plot", "-o", str(png)]) == 2
    err = capsys.readouterr().err
    assert 'needs the package matplotlib; pip install "aslp-jax[train]"' in err
    assert err.count("\n") == 1 and not png.exists()
