"""Networks of one's own, imported by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from aslp_jax import functional
from aslp_jax._errors import BadInput
from aslp_jax.trainer import own_network

SOURCE = """
import flax.linen as nn
from flax import nnx


class Linen(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))


class NNX(nnx.Module):
    def __init__(self, classes, width=4, *, rngs):
        self.hidden = nnx.Linear(4, width, rngs=rngs)
        self.dense = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.hidden(x.reshape(x.shape[0], -1)))


def make(depth):
    return nn.Sequential([nn.Dense(3) for _ in range(depth)])


def make_nnx(rngs):
    return NNX(2, rngs=rngs)


def fails():
    raise RuntimeError("first line\\nsecond line")


ready = Linen(5)
number = 3
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return path


def classes(net) -> int:
    network, inputs = functional.network(net), jnp.ones((1, 4))
    weights, _ = jax.eval_shape(network.init, jax.random.key(0), inputs)
    outputs, _ = jax.eval_shape(network.apply, weights, {}, inputs)
    return outputs.shape[-1]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("Linen", None, 3),
        ("Linen", "classes=7", 7),
        ("NNX", "classes=6,width=2", 6),
        ("make", "depth=2", 3),
        ("make_nnx", None, 2),
        ("ready", None, 5),
    ],
)
def test_classes_functions_and_values_are_networks(nets, name, arguments, expected):
    assert classes(own_network.load(f"nets.py:{name}", arguments)) == expected


def test_the_same_values_give_the_same_network(nets):
    first, second = (own_network.load("nets.py:NNX", "classes=6") for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)


def test_a_module_by_its_name(nets, monkeypatch):
    monkeypatch.syspath_prepend(nets.parent)
    assert classes(own_network.load("nets:Linen")) == 3
    assert own_network.source_sha256("nets:Linen") == own_network.source_sha256(
        "nets.py:Linen"
    )


def test_a_file_named_like_a_package_hides_nothing(nets):
    nets.rename("optax.py")
    assert classes(own_network.load("optax.py:Linen")) == 3
    import optax

    assert hasattr(optax, "sgd")


def test_a_changed_file_is_refused_and_loaded_anew(nets):
    sha256 = own_network.source_sha256("nets.py:Linen")
    assert classes(own_network.load("nets.py:Linen", sha256=sha256)) == 3
    nets.write_text(SOURCE.replace("classes: int = 3", "classes: int = 4"))
    with pytest.raises(BadInput, match=f"nets.py:Linen has changed.*{sha256}"):
        own_network.load("nets.py:Linen", sha256=sha256)
    assert classes(own_network.load("nets.py:Linen")) == 4


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("nets.py", None, "--model must be FILE.py:NAME or package.module:NAME"),
        ("nets.py:", None, "--model must be FILE.py:NAME or package.module:NAME"),
        ("none.py:Net", None, "none.py cannot be read: No such file"),
        ("no_package:Net", None, "no module 'no_package'; install it"),
        ("no_package.x:Net", None, "No module named 'no_package'"),
        ("nets.py:Net", None, "no 'Net' there; it has Linen, NNX, make"),
        ("nets.py:NNX", None, "needs --model-args classes=..."),
        ("nets.py:NNX", "classes=2,depth=3", "no argument 'depth'; it takes classes"),
        (
            "nets.py:Linen",
            "classes",
            "must be as in classes=10,width=0.25, got classes",
        ),
        ("nets.py:Linen", "classes=f(1)", "must be as in classes=10,width=0.25"),
        ("nets.py:Linen", "**{'a': 1}", "must be as in classes=10,width=0.25"),
        ("nets.py:Linen", "a=1) or g(", "must be as in classes=10,width=0.25"),
        ("nets.py:ready", "classes=3", "is no class or function; drop --model-args"),
        ("nets.py:number", None, "gives int; expected a Flax Linen or NNX module"),
        ("nets.py:nn", None, "gives module; expected a Flax Linen or NNX module"),
        ("nets.py:fails", None, "nets.py:fails: RuntimeError: first line"),
    ],
)
def test_refusals_are_one_line(nets, model, arguments, words):
    with pytest.raises(BadInput) as error:
        own_network.load(model, arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_import_that_fails_is_one_line(nets):
    nets.write_text("import no_such_package\n")
    with pytest.raises(BadInput, match=r"cannot be imported: ModuleNotFoundError: No"):
        own_network.load("nets.py:Net")


def test_arguments_are_literals_and_words():
    text = "width=0.25,stages=(1, 2),name=small,flag=True,none=None,neg=-1"
    assert own_network.parse_arguments(text) == {
        "width": 0.25,
        "stages": (1, 2),
        "name": "small",
        "flag": True,
        "none": None,
        "neg": -1,
    }
    assert own_network.parse_arguments("") == {}


def test_a_list_makes_no_cached_network(nets):
    with pytest.raises(BadInput, match="unhashable"):
        own_network.load("nets.py:NNX", "classes=[1]")


def test_a_linen_class_is_a_module(nets):
    assert isinstance(own_network.load("nets.py:Linen"), nn.Module)
