"""The reference networks of MLPerf Tiny, from training to the programs of each format.

Each network is of its published size, in Linen and in NNX: masked, trained, saved,
loaded and exported. Every export is run and compared with the loaded network. The
numbers in docs/export.md are printed by

    pytest tests/test_reference_networks.py -k formats -rP
"""

import dataclasses
import functools
import re
import shutil
import subprocess
from collections import Counter
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
import onnx.numpy_helper
import optax
import pytest

import aslp_jax
from aslp_jax import ASLP, artefact, evaluate, export, functional, optim, train
from aslp_jax.artefact import Description, Subnetwork
from aslp_jax.export import c
from aslp_jax.models import initialisers
from tests.export.networks import run_onnx
from tests.export.test_npz import restore
from tests.mlperf_tiny import NETWORKS

pytestmark = [
    # Compiling a network, its training step and its C programs takes seconds.
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing"),
]

FRONTS = ("linen", "nnx")
EACH = pytest.mark.parametrize(
    "name, front", [(name, front) for name in NETWORKS for front in FRONTS]
)
STORAGES = {
    **{(name, "linen"): ("seed", "sparse") for name in NETWORKS},
    # The network with the fewest weights.
    ("ds_cnn", "linen"): c.STORAGES,
    **{(name, "nnx"): ("seed",) for name in NETWORKS},
}
"""Storages in C."""

TOLERANCE = 1e-4
"""Largest difference of an export, as a fraction of the range of the outputs."""

BATCH, STEPS, EXAMPLES = 4, 2, 5
MOMENTUM = 0.99
"""Of batch-norm in Flax, where nothing else is given."""

KEY = jax.random.key(16)
SIGNED = initialisers.signed_constant(initialisers.kaiming_normal())
OPTIMISER = optim.by_group({"logits": optax.sgd(50.0), "scale": optax.sgd(1e-2)})
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]
SANITISED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@functools.cache
def maker(name: str) -> functional.NNX:
    """The NNX network; the same object in each call, so that it is compiled once."""
    return functional.NNX(lambda rngs: NETWORKS[name].nnx(rngs=rngs))


def network_of(name: str, front: str) -> Any:
    return NETWORKS[name].linen() if front == "linen" else maker(name)


def is_image(name):
    return len(NETWORKS[name].shape) == 3


def about(name: str) -> Description:
    reference = NETWORKS[name]
    shape, facts = reference.shape, {"classes": reference.outputs}
    if not is_image(name):
        facts = {"classes": None, "output_shape": shape}
    else:
        facts |= {"mean": (0.5,) * shape[-1], "std": (0.25,) * shape[-1]}
    return Description(name, image_shape=shape, dataset="noise", **facts)


def examples(name: str) -> np.ndarray:
    """Inputs of an export: noise, each example stronger than the one before."""
    rng, shape = np.random.default_rng(1), (EXAMPLES, *NETWORKS[name].shape)
    strength = np.linspace(0.2, 1, EXAMPLES).reshape(-1, *[1] * (len(shape) - 1))
    if is_image(name):
        return (strength * rng.integers(0, 256, shape)).astype(np.uint8)
    return (strength * rng.normal(size=shape)).astype(np.float32)


def model_of(name: str, front: str) -> functional.Model:
    return functional.Model(network_of(name, front), ASLP(), weight_init=SIGNED)


def batch_of(name: str) -> tuple[jax.Array, jax.Array]:
    reference, rng = NETWORKS[name], np.random.default_rng(0)
    inputs = rng.normal(size=(BATCH, *reference.shape))
    labels = np.arange(BATCH) % reference.outputs
    return jnp.asarray(inputs, jnp.float32), jnp.asarray(labels, jnp.int32)


def reconstruct(state, inputs, _, key, *, model):
    """A step of an autoencoder: `train.step` with another loss, without labels."""
    net = functional.network(model.net)

    def loss(params):
        weights = model.method.effective_weights(state.frozen, params, key=key)
        outputs, collections = net.apply(
            weights, state.collections, inputs, train=True, key=key
        )
        return jnp.mean((outputs - inputs) ** 2), dict(collections)

    (value, collections), gradient = jax.value_and_grad(loss, has_aux=True)(
        state.params
    )
    updates, opt_state = OPTIMISER.update(gradient, state.opt_state, state.params)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        collections=collections,
        opt_state=opt_state,
    )
    return state, value, None


@functools.cache
def untrained(name: str) -> train.TrainState:
    """The state of a Linen network before training, its biases not 0."""
    rng = np.random.default_rng(2)

    def move(leaf):
        leaf = np.asarray(leaf)
        moved = leaf + 0.1 * rng.normal(size=leaf.shape) if leaf.ndim == 1 else leaf
        return jnp.asarray(moved, jnp.float32)

    state = train.create(model_of(name, "linen"), OPTIMISER, KEY, batch_of(name)[0])
    # Biases of 0 would not differ from lost ones.
    return state.replace(frozen=jax.tree.map(move, state.frozen))


@functools.cache
def trained(name: str, front: str) -> train.TrainState:
    """The state of a network after a few steps; both fronts start with the same."""
    state, (inputs, labels) = untrained(name), batch_of(name)
    statistics = state.collections["batch_stats"]
    if front == "nnx":
        state = state.replace(collections={"state": statistics})
    model = model_of(name, front)
    step: Any = functools.partial(reconstruct, model=model)
    if is_image(name):
        step = functools.partial(train.step, model=model, optimiser=OPTIMISER)
    step = jax.jit(step)
    for index in range(STEPS):
        state, loss, _ = step(state, inputs, labels, jax.random.fold_in(KEY, index))
        assert np.isfinite(loss)
    return state.replace(collections=settled(state.collections, statistics))


def settled(collections, start):
    """Batch statistics that forget their start, as they do in a long training.

    Else a network of this depth does not depend on its inputs: the variances are nearly
    1, and those of the pruned layers are far below.
    """
    kept = MOMENTUM**STEPS

    def forget(after, before):
        after, before = np.asarray(after), np.asarray(before)
        return jnp.asarray((after - kept * before) / (1 - kept), jnp.float32)

    ((name, after),) = collections.items()
    return {name: jax.tree.map(forget, after, start)}


@functools.cache
def extracted(name: str, front: str) -> Subnetwork:
    variables = trained(name, front).variables
    return artefact.extract(model_of(name, front), variables, about(name), key=KEY)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder of all files."""
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="module")
def loaded(files):
    """Function that returns a network, read from its file."""

    @functools.cache
    def load(name: str, front: str) -> Subnetwork:
        path = files / f"{name}_{front}.aslp"
        artefact.save(extracted(name, front), path)
        return aslp_jax.load(path, net=network_of(name, front))

    return load


MAIN = """
#include <stdio.h>
{includes}
int main(void)
{{
    static {type} input[{inputs}];
    static float output[{outputs}];
    while (fread(input, sizeof input, 1, stdin) == 1) {{
        {calls}
    }}
    return 0;
}}
"""
CALL = """{source}_{function}(input, output);
        fwrite(output, sizeof output, 1, stdout);"""


@pytest.fixture(scope="module")
def c_outputs(files, loaded):
    """Function that returns the outputs of C by front and storage.

    One program runs all sources of a network.
    """

    @functools.cache
    def run(name: str) -> dict[tuple[str, str], np.ndarray]:
        reference, given = NETWORKS[name], examples(name)
        keys = [(front, each) for front in FRONTS for each in STORAGES[name, front]]
        sources = [f"{name}_{front}_{storage}" for front, storage in keys]
        for source, (front, storage) in zip(sources, keys, strict=True):
            subnetwork = loaded(name, front)
            export.write(subnetwork, "c", files / f"{source}.c", storage=storage)
        function = "logits" if is_image(name) else "run"
        main = MAIN.format(
            includes="\n".join(f'#include "{source}.h"' for source in sources),
            type="uint8_t" if is_image(name) else "float",
            inputs=given[0].size,
            outputs=reference.outputs,
            calls="\n        ".join(
                CALL.format(source=source, function=function) for source in sources
            ),
        )
        (files / f"{name}.c").write_text(main)
        program, code = files / name, [f"{each}.c" for each in (name, *sources)]
        command = ["gcc", *FLAGS, *SANITISED, "-o", program, *code]
        subprocess.run(command, cwd=files, check=True)
        done = subprocess.run([program], input=given.tobytes(), capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        found = np.frombuffer(done.stdout, np.float32)
        found = found.reshape(EXAMPLES, len(keys), reference.outputs)
        return {key: found[:, index] for index, key in enumerate(keys)}

    return run


@EACH
def test_training_selects_other_weights(name, front):
    before, after = untrained(name), trained(name, front)
    for layer, logits in after.params["logits"].items():
        logits = np.asarray(logits)
        assert (np.asarray(before.params["logits"][layer]) == 0).all()
        assert 0.2 < np.mean(logits > 0) < 0.8, layer
    # The one layer without batch-norm, which undoes the scales of all others.
    assert np.asarray(after.params["scale"]["dense/kernel"]) != 1


@EACH
def test_the_file_is_the_trained_network_bit_for_bit(name, front, loaded):
    inputs = jnp.asarray(examples(name))
    expected = evaluate.outputs(
        trained(name, front).variables,
        inputs,
        model=model_of(name, front),
        prepare=loaded(name, front).prepare if is_image(name) else jnp.asarray,
    )
    np.testing.assert_array_equal(loaded(name, front)(inputs), expected)
    layers = loaded(name, front).layers
    kernels = {layer for layer in layers if layer.endswith("kernel")}
    assert {layers[layer].origin for layer in kernels} == {"recipe"}


@EACH
def test_all_formats_compute_what_the_network_computes(
    name, front, files, loaded, c_outputs
):
    subnetwork, inputs = loaded(name, front), examples(name)
    expected = np.asarray(subnetwork(inputs))
    spread = np.ptp(expected)
    # The inputs matter, not the biases alone.
    assert np.ptp(expected, axis=0).max() > 0.1 * spread > 0
    paths = {kind: files / f"{name}_{front}.{kind}" for kind in ("onnx", "npz")}
    export.write(subnetwork, "onnx", paths["onnx"])
    found = {"onnx": run_onnx(paths["onnx"].read_bytes(), inputs)}
    hlo = files / f"{name}_{front}.stablehlo"
    export.write(subnetwork, "stablehlo", hlo)
    exported = jax.export.deserialize(bytearray(hlo.read_bytes()))
    found["stablehlo"] = np.asarray(exported.call(inputs))
    export.write(subnetwork, "npz", paths["npz"], storage="sparse")
    found["npz"] = np.asarray(with_arrays_of(subnetwork, paths["npz"])(inputs))
    of_c = c_outputs(name)
    found |= {f"c {each}": of_c[front, each] for each in STORAGES[name, front]}
    differences = {}
    for kind, outputs in found.items():
        assert outputs.shape == expected.shape and outputs.dtype == np.float32, kind
        differences[kind] = np.abs(outputs - expected).max() / spread
        assert differences[kind] <= TOLERANCE, kind
        assert (outputs.argmax(1) == expected.argmax(1)).all(), kind
    print(facts(name, front, differences, files))


def with_arrays_of(subnetwork, path):
    """The same network, with all arrays read from an npz file by their names."""
    with np.load(path, allow_pickle=False) as file:
        variables = jax.tree_util.tree_map_with_path(
            lambda where, _: jnp.asarray(
                restore(file, jax.tree_util.keystr(where, simple=True, separator="/"))
            ),
            subnetwork.variables,
        )
    return dataclasses.replace(subnetwork, variables=variables)


def facts(name, front, differences, files):
    """A line of differences and sizes."""
    masks = [layer.mask for layer in extracted(name, front).layers.values()]
    kept = np.mean(np.concatenate([mask.ravel() for mask in masks if mask is not None]))
    parts = [f"{name} {front}: {kept:.1%} kept"]
    parts += [f"{kind} {number:.0e}" for kind, number in differences.items()]
    size = (files / f"{name}_{front}.aslp").stat().st_size
    parts.append(f"artefact {size:,} bytes")
    for storage in STORAGES[name, front]:
        header = (files / f"{name}_{front}_{storage}.h").read_text()
        (flash,) = re.findall(r"([\d,]+) bytes of constants", header)
        (memory,) = re.findall(r"memory between layers: ([\d,]+) bytes", header)
        parts.append(f"C {storage} {flash} bytes and {memory} of RAM")
    return ", ".join(parts)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_network_in_both_fronts_has_equal_exports(name, loaded):
    linen, nnx = (loaded(name, front) for front in FRONTS)
    variables = linen.variables
    # The names of the arrays are the same; only the collections differ.
    same = {"params": variables["params"], "state": variables["batch_stats"]}
    assert jax.tree.structure(same) == jax.tree.structure(nnx.variables)
    nnx = dataclasses.replace(nnx, variables=same, layers=linen.layers)
    operators, arrays = zip(*map(onnx_contents, (linen, nnx)), strict=True)
    assert operators[0] == operators[1]
    for one, other in zip(*arrays, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def onnx_contents(subnetwork):
    """Operators and arrays of an ONNX model."""
    graph = onnx.load_from_string(export.onnx.encode(subnetwork).content).graph
    operators = Counter(node.op_type for node in graph.node)
    return operators, [onnx.numpy_helper.to_array(each) for each in graph.initializer]
