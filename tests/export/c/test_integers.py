"""C sources of integer graphs give the numbers of their definition, bit for bit."""

import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest

from aslp_jax.export import c
from aslp_jax.export.integer import reference
from aslp_jax.export.integer.operations import (
    IntegerGraph,
    IntegerLayer,
    IntegerNode,
    Number,
    Requantization,
)
from aslp_jax.export.operations import Concatenate, Conv, Graph, Window
from tests.export.c.test_operations import SANITISED, STRICT
from tests.export.integer.graphs import SHAPE, every_operation

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the exports, is missing"
)

COUNT = 3
MAIN = """
#include <stdio.h>
#include "net.h"
int main(void)
{
    static TYPE input[6 * 5 * 4];
    static net_output output[NET_OUTPUTS];
    while (fread(input, 1, sizeof input, stdin) == sizeof input) {
        net_run(input, output);
        fwrite(output, sizeof output, 1, stdout);
    }
    return 0;
}
"""
slow = pytest.mark.slow
CASES = [
    ("uint8", "seed", ("gcc", "-std=c99", "-funsigned-char")),
    pytest.param("uint8", "sparse", ("gcc", "-std=c99"), marks=slow),
    pytest.param("uint8", "signs", ("gcc", "-std=c99"), marks=slow),
    pytest.param("uint8", "dense", ("gcc", "-std=c99"), marks=slow),
    pytest.param("int16", "signs", ("gcc", "-std=c99"), marks=slow),
    pytest.param("int16", "sparse", ("gcc", "-std=c99"), marks=slow),
    pytest.param("int16", "seed", ("gcc", "-std=c99"), marks=slow),
    pytest.param("uint8", "signs", ("g++", "-std=c++11"), marks=slow),
    pytest.param("uint8", "seed", ("clang", "-std=c99"), marks=slow),
    pytest.param("int16", "dense", ("clang", "-std=c99"), marks=slow),
]


def inputs_of(kind):
    rng = np.random.default_rng(1)
    low, high = (0, 256) if kind == "uint8" else (-32767, 32768)
    inputs = rng.integers(low, high, (COUNT, *SHAPE)).astype(kind)
    inputs[0, 0] = high - 1
    return inputs


def outputs(folder, code, inputs, compiler):
    """Compiles a source, runs it and returns its outputs."""
    for suffix, content in code.files.items():
        (folder / f"net{suffix}").write_bytes(content)
    (folder / "main.c").write_text(MAIN.replace("TYPE", f"{inputs.dtype}_t"))
    cpp = ["-x", "c++"] if compiler[0] == "g++" else []
    strict = [each for each in STRICT if not each.startswith("-std")]
    command = [*compiler, *strict, *SANITISED, "-o", "net", *cpp, "main.c", "net.c"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run([folder / "net"], input=inputs.tobytes(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.parametrize("kind, storage, compiler", CASES)
def test_every_operation_is_its_definition(tmp_path, kind, storage, compiler):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is missing")
    ternary = storage in ("signs", "seed")
    graph, layers, parts = every_operation(kind, ternary=ternary)
    code = c.encode_integer_graph(
        graph, "net", storage=storage, classes=False, layers=layers
    )
    inputs = inputs_of(kind)
    written = outputs(tmp_path, code, inputs, compiler)
    found = np.frombuffer(written, graph.numbers[-1].kind).reshape(COUNT, -1)
    expected = reference.run(graph, inputs)
    ends = np.cumsum(list(parts.values()))
    wrong = [
        name
        for name, start, end in zip(parts, [0, *ends[:-1]], ends, strict=True)
        if not np.array_equal(found[:, start:end], expected[:, start:end])
    ]
    assert not wrong
    assert found.shape == expected.shape


def test_sums_of_the_largest_numbers_are_exact(tmp_path):
    # A sum of 240 numbers of 255 needs 17 bits.
    shape = (3, 1, 40)
    assert np.prod(shape) == np.prod(SHAPE)
    kernel = np.ones((3, 1, 80, 2), np.float32)
    kernel[..., 1] = -1
    conv = Conv("", kernel, (1, 1), ((1, 1), (0, 0)), (1, 1))
    step = Requantization(np.array([1]), np.array([1]), 1, -32767, 32767)
    twice = Concatenate(2, (None, None))
    nodes = (
        IntegerNode(twice, (0, 0), (3, 1, 80)),
        IntegerNode(IntegerLayer(conv, step), (1,), (3, 1, 2)),
    )
    numbers = (Number("uint8", 1.0),) * 2 + (Number("int16", 1.0),)
    graph = IntegerGraph(shape, nodes, numbers, Graph(shape, ()))
    inputs = np.full((COUNT, *shape), 255, np.uint8)
    code = c.encode_integer_graph(graph, "net", storage="signs", classes=False)
    found = np.frombuffer(outputs(tmp_path, code, inputs, ("gcc", "-std=c99")), "i2")
    expected = reference.run(graph, inputs)
    assert 2 * np.abs(expected).max() > 2**15
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_a_network_of_windows_alone(tmp_path):
    """Nothing else needs what comes after a sum."""
    window = Window("max", (3, 2, 1), (2, 1, 1), ((1, 1), (0, 1), (0, 0)))
    nodes = (IntegerNode(window, (0,), (3, 5, 4)),)
    graph = IntegerGraph(SHAPE, nodes, (Number("uint8", 0.5),) * 2, Graph(SHAPE, ()))
    code = c.encode_integer_graph(graph, "net", classes=False)
    inputs = inputs_of("uint8")
    found = np.frombuffer(outputs(tmp_path, code, inputs, ("gcc", "-std=c99")), "u1")
    expected = reference.run(graph, inputs)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("kind", ["uint8", "int16"])
@pytest.mark.parametrize("storage", c.STORAGES)
def test_a_source_has_no_floating_point(kind, storage):
    graph, layers, _ = every_operation(kind, ternary=True)
    code = c.encode_integer_graph(
        graph, "net", storage=storage, classes=False, layers=layers
    )
    text = code.files[".c"].decode() + code.files[".h"].decode()
    assert not re.search(r"\b(float|double)\b|math\.h|\d\.\d+f|INFINITY", text)
    assert f"{code.memory_bytes:,} bytes" in text


def test_the_header_tells_the_static_memory(tmp_path):
    for kind, storage in (("uint8", "seed"), ("int16", "signs"), ("uint8", "sparse")):
        graph, layers, _ = every_operation(kind, ternary=True)
        code = c.encode_integer_graph(
            graph, "net", storage=storage, classes=False, layers=layers
        )
        for suffix, content in code.files.items():
            (tmp_path / f"net{suffix}").write_bytes(content)
        compiled = ["gcc", *STRICT, "-O0", "-S", "-o", "-", "net.c"]
        done = subprocess.run(compiled, cwd=tmp_path, capture_output=True, text=True)
        places = re.findall(r"\.local\t\w+\n\t\.comm\t(\w+),(\d+)", done.stdout)
        sizes = {name: int(size) for name, size in places if name != "added"}
        assert sum(sizes.values()) == code.memory_bytes
        assert ("partial_sums" in sizes) == (storage == "seed")


@pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing"
)
@pytest.mark.parametrize("storage", ["dense", "seed"])
def test_constants_and_tables_are_those_of_a_processor_of_32_bits(storage, tmp_path):
    graph, layers, _ = every_operation("uint8", ternary=True)
    code = c.encode_integer_graph(
        graph, "net", storage=storage, classes=False, layers=layers
    )
    for suffix, content in code.files.items():
        (tmp_path / f"net{suffix}").write_bytes(content)
    compiler = ["arm-none-eabi-gcc", "-std=c99", "-O1", "-mcpu=cortex-m0", "-mthumb"]
    subprocess.run([*compiler, "-c", "net.c"], cwd=tmp_path, check=True)
    command = ["arm-none-eabi-size", "-A", "net.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    (size,) = re.findall(r"^\.rodata\s+(\d+)", done.stdout, re.MULTILINE)
    assert code.table_bytes > 4000
    assert int(size) <= code.constant_bytes + code.table_bytes < 1.05 * int(size)


def replaced(graph, index, change):
    """Changes the kernel of one layer."""
    nodes = list(graph.nodes)
    found = [
        each
        for each, node in enumerate(nodes)
        if isinstance(node.operation, IntegerLayer)
    ]
    node = nodes[found[index]]
    layer = node.operation.layer
    layer = dataclasses.replace(layer, kernel=change(layer.kernel))
    operation = dataclasses.replace(node.operation, layer=layer)
    nodes[found[index]] = dataclasses.replace(node, operation=operation)
    return dataclasses.replace(graph, nodes=tuple(nodes))


def test_weights_that_a_storage_cannot_hold_are_refused():
    graph, layers, _ = every_operation("uint8", ternary=True)
    doubled = replaced(graph, 1, lambda kernel: 2 * kernel)
    message = r"c: 'Layer_1/kernel' has weights other than -1, 0 and 1; use another st"
    with pytest.raises(ValueError, match=message):
        c.encode_integer_graph(doubled, "net", storage="signs", classes=False)
    for change in (lambda kernel: 2 * kernel, np.abs):
        other = replaced(graph, 2, change)
        with pytest.raises(
            ValueError, match="'Layer_2/kernel' differs from what its se"
        ):
            c.encode_integer_graph(
                other, "net", storage="seed", classes=False, layers=layers
            )
