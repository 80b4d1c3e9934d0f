"""Networks of one's own: their files name them, and are loaded with the module."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import aslp_jax
from aslp_jax import ASLP, artefact, evaluate, functional
from aslp_jax import nnx as masked_nnx
from aslp_jax.artefact import ArtefactError, Source, embed, extract, load, save
from aslp_jax.artefact.decoding import assemble, decode
from aslp_jax.artefact.encoding import encode
from aslp_jax.methods import kernels
from aslp_jax.models import ConvNet, initialisers
from tests.artefact.networks import (
    ABOUT,
    SIGNED,
    assert_same,
    edited,
    header_of,
    made_of,
    named,
)
from tests.artefact.own import (
    OWN,
    PLAIN,
    SHAPE,
    SOURCE,
    Depthwise,
    Halved,
    Perceptron,
    about_of,
    model_of,
    own,
    own_file,
)

KINDS = ("linen", "nnx", "plain", "half")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.aslp"


def net_of(kind: str) -> Any:
    """A network that was made on its own, with other weights."""
    rngs = nnx.Rngs(1)
    nets = {"linen": Depthwise(), "plain": PLAIN, "half": Halved()}
    return Perceptron(rngs) if kind == "nnx" else nets[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_any_framework_comes_back_bit_for_bit(kind, path):
    variables, subnetwork = own(kind)
    model, about = model_of(kind), about_of(kind)
    save(subnetwork, path)
    read = aslp_jax.load(path, net=net_of(kind))
    assert path.read_bytes()[8] == 2
    assert read.description == subnetwork.description
    assert jax.tree.structure(read.variables) == jax.tree.structure(
        subnetwork.variables
    )
    for one, other in zip(
        jax.tree.leaves(read.variables),
        jax.tree.leaves(subnetwork.variables),
        strict=True,
    ):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    for name, layer in read.layers.items():
        for field in ("weights", "frozen", "mask", "scale", "recipe", "magnitude"):
            found, right = (
                getattr(each, field) for each in (layer, subnetwork.layers[name])
            )
            np.testing.assert_array_equal(found, right)
    assert any(layer.mask is not None for layer in read.layers.values())
    inputs = np.random.default_rng(0).normal(size=(4, *about.image_shape))
    inputs = np.float32(inputs)
    wanted = evaluate.outputs(
        variables, jnp.asarray(inputs), model=model, prepare=_identity
    )
    assert wanted.shape == (4, *about.outputs) and np.ptp(wanted) > 0
    np.testing.assert_array_equal(read(inputs), wanted)
    assert encode(read) == path.read_bytes()


def _identity(inputs: jax.Array) -> jax.Array:
    return inputs


def test_weights_of_weight_init_are_a_recipe():
    """Depthwise kernels too, with the fan-in of their own axes."""
    variables, subnetwork = own("linen")
    for name in ("stem/kernel", "depth/kernel", "a_head/kernel"):
        layer = subnetwork.layers[name]
        assert layer.origin == "recipe" and layer.scale is not None
        assert layer.recipe.initialiser == "signed_constant"
        np.testing.assert_array_equal(layer.frozen, named(variables["frozen"])[name])
    assert subnetwork.layers["depth/kernel"].weights.shape == (3, 3, 1, 4)
    for kind in ("nnx", "plain"):
        layers = own(kind)[1].layers.items()
        assert {layer.origin for name, layer in layers if kernels(name)} == {"recipe"}
    without = extract(model_of("linen"), variables, OWN)
    assert {without.layers[name].origin for name in ("depth/kernel",)} == {"signs"}
    assert without.source == Source("Depthwise")


def test_arrays_are_in_the_order_of_the_network_and_of_their_dtype():
    header = header_of(own_file("linen"))
    paths = ["/".join(array["path"]) for array in header["arrays"]]
    assert paths.index("stem/kernel") < paths.index("depth/kernel")
    assert paths.index("depth/kernel") < paths.index("a_head/kernel")
    (count,) = (e for e in header["collections"] if e["path"] == ["count", "calls"])
    assert count["dtype"] == "int32" and count["shape"] == []
    halves = header_of(own_file("half"))["arrays"]
    assert {array["dtype"] for array in halves} == {"bfloat16"}
    assert {array["origin"] for array in halves} == {"values", "dense"}
    plain = header_of(own_file("plain"))["arrays"]
    assert ["mlp/~/one", "kernel"] in [array["path"] for array in plain]


def test_a_network_that_the_person_has_to_give(path):
    save(own("linen")[1], path)
    with pytest.raises(ArtefactError) as error:
        load(path)
    assert str(error.value) == (
        f"{path} holds the network nets.py:TinyNet (classes=3,on=True,width=0.5), "
        "which is not of this library; give it as load(path, net=...)"
    )
    with pytest.raises(TypeError, match="network: expected a Flax Linen module"):
        load(path, net=Depthwise)
    with pytest.raises(ArtefactError, match="holds a network, not a bare pytree"):
        load(path, like={})
    unbound = assemble(decode(own_file("linen")))
    assert unbound.net is None and unbound.source == SOURCE
    with pytest.raises(ValueError, match=r"of nets.py:TinyNet .* without the network"):
        unbound(np.zeros((1, *SHAPE), np.uint8))
    assert encode(unbound) == own_file("linen")
    assert embed(unbound).layers["stem/kernel"].origin == "signs"


def test_a_masked_module_of_nnx_holds_its_own_variables(path):
    model = masked_nnx.Masked(
        Perceptron(nnx.Rngs(2)), ASLP(logit_std=1.0), rngs=nnx.Rngs(0)
    )
    model.net.norm.mean[...] += 0.25
    subnetwork = extract(model, None, OWN)
    assert subnetwork.source == Source("Perceptron")
    save(subnetwork, path)
    read = load(path, net=Perceptron(nnx.Rngs(4)))
    inputs = np.float32(np.random.default_rng(0).normal(size=(4, *SHAPE)))
    model.eval()
    np.testing.assert_allclose(read(inputs), model(inputs), rtol=1e-5, atol=1e-6)
    assert float(read.variables["state"]["norm"]["mean"][0]) == 0.25
    assert read.layers["layers/0/kernel"].mask is not None
    with pytest.raises(ArtefactError, match="extract: variables are missing"):
        extract(model_of("nnx"), None, OWN)


class Wider(Perceptron):
    def __init__(self, rngs: nnx.Rngs) -> None:
        super().__init__(rngs, hidden=5)


class Longer(Perceptron):
    def __init__(self, rngs: nnx.Rngs) -> None:
        super().__init__(rngs)
        self.more = nnx.Linear(3, 3, rngs=rngs)


@pytest.mark.parametrize(
    ("kind", "net", "words"),
    [
        (
            "linen",
            Depthwise(classes=4),
            r"has float32\[3\] at 'params/a_head/bias', where the network has fl",
        ),
        ("nnx", functional.NNX(Wider), r"has float32\[4\] at 'params/layers/0/bias'"),
        ("nnx", functional.NNX(Longer), "has nothing at 'params/more/bias', where the"),
        ("nnx", Depthwise(), "has nothing at 'batch_stats/norm/mean', where the netw"),
        ("half", Depthwise(), r"cannot be loaded: the network takes no inputs of \(6,"),
        (
            "plain",
            dataclasses.replace(PLAIN, apply=lambda w, c, x, **_: (x, c)),
            r"with outputs of \(3,\), where the network has outputs of \(6, 5, 2\)",
        ),
    ],
)
def test_another_network_is_refused_in_one_line(kind, net, words, path):
    save(own(kind)[1], path)
    with pytest.raises(ArtefactError, match=words) as error:
        load(path, net=net)
    assert str(error.value).startswith(f"{path} ") and "\n" not in str(error.value)


def test_bits_of_another_dtype_are_refused(path):
    """The sha256 is that of the bytes, which are the same."""

    def change(header: Any) -> None:
        (bias,) = (e for e in header["arrays"] if e["path"] == ["Dense_0", "bias"])
        bias["dtype"] = "float16"

    path.write_bytes(edited(own_file("half"), change))
    with pytest.raises(
        ArtefactError, match=r"float16\[4\] at .*, where the network has bfloat16\[4\]"
    ):
        load(path, net=Halved())


def test_another_network_is_not_extracted():
    variables, _ = own("linen")
    other = dataclasses.replace(OWN, classes=None, output_shape=(6, 5), class_names=())
    with pytest.raises(ArtefactError, match=r"extract: the model is described with"):
        extract(model_of("linen"), variables, other)
    lacking = {name: variables[name] for name in ("frozen", "params", "count")}
    with pytest.raises(ArtefactError, match=r"extract: .* nothing at 'batch_stats/"):
        extract(model_of("linen"), lacking, OWN)
    broken = dict(variables, count={"calls": jnp.float32(jnp.nan)})
    with pytest.raises(ArtefactError, match=r"has float32\[\] at 'count/calls', where"):
        extract(model_of("linen"), broken, OWN)
    spoilt = jax.tree.map(lambda leaf: leaf, variables)
    spoilt["batch_stats"]["norm"]["mean"] *= jnp.nan
    with pytest.raises(ArtefactError, match="'batch_stats/norm/mean' must hold finite"):
        extract(model_of("linen"), spoilt, OWN)


def test_class_names_of_a_network_of_this_library(path):
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    save(subnetwork, path)
    assert path.read_bytes()[8] == 1
    about = dataclasses.replace(ABOUT, class_names=("cat", "dog", "bird"))
    save(dataclasses.replace(subnetwork, description=about), path)
    assert path.read_bytes()[8] == 2
    read = load(path)
    assert read.description == about
    assert_same(read, subnetwork)
    for net in (subnetwork.net, functional.Linen(subnetwork.net)):
        assert_same(load(path, net=net), subnetwork)
        assert encode(load(path, net=net)) == path.read_bytes()


class Copied(ConvNet):
    """A network of one's own with the arrays of a network of this library."""


def test_a_network_of_this_library_runs_on_a_module_of_ones_own(path):
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    save(subnetwork, path)
    fields = {name: getattr(subnetwork.net, name) for name in ("stages", "hidden")}
    net = Copied(classes=3, bias_init=initialisers.fan_in_uniform, **fields)
    read = load(path, net=net)
    assert read.net is net and read.source == Source("Copied")
    save(read, path)
    assert path.read_bytes()[8] == 2
    assert_same(load(path, net=net), subnetwork)
    with pytest.raises(ArtefactError, match="Copied is no network of this library"):
        encode(dataclasses.replace(read, source=None))


@pytest.mark.slow
def test_a_network_of_this_library_in_a_functional_model(path):
    """It has the recipes of its own initialisers, and format 1."""
    variables, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    net = subnetwork.net.clone(conv_init=SIGNED, dense_init=SIGNED)
    key = jax.random.key(3)
    for plain in (net, functional.Linen(net)):
        model = functional.Model(plain, ASLP(logit_std=1.0))
        init = jax.jit(functools.partial(functional.init, model))
        variables = init(key, jnp.zeros((1, *ABOUT.image_shape)))
        found = extract(model, variables, ABOUT, key=key, source=SOURCE)
        assert found.source is None
        assert {layer.origin for layer in found.layers.values()} == {"recipe"}
    assert encode(found)[8] == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"label": ""}, "network.label is ''; expected a text, not empty"),
        ({"label": "a\n"}, "network.label is .*printable"),
        ({"label": "a", "sha256": "ab"}, "network.sha256 is 'ab'; expected 64"),
        ({"label": "a", "arguments": {"x": [1]}}, r"network.arguments .x. is \[1\]"),
        ({"label": "a", "arguments": {"x": 2**60}}, "an integer from -9007"),
        ({"label": "a", "arguments": {"x": float("nan")}}, "a number that float32"),
    ],
)
def test_names_that_no_file_can_hold_are_refused(values, words):
    with pytest.raises(ArtefactError, match=words):
        artefact.Source(**values)
