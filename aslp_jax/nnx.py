"""`Masked` for `flax.nnx`: any NNX module, run on a subnetwork of its frozen weights.

The front for `flax.linen` is `aslp_jax.Masked`; both follow the same pure rule.

The file is long because it keeps a wrapped module and its copies in step.
"""

import functools
import inspect
import operator
import types
from collections.abc import Iterable
from typing import Any

import flax.linen
import jax
from flax import nnx, traverse_util
from flax.typing import Initializer

from aslp_jax._checks import check_method, single_key
from aslp_jax._initialise import check_initialiser, initialise
from aslp_jax._tree import Select, kernels
from aslp_jax._zeros import warn_of_zeros
from aslp_jax.methods import Method
from aslp_jax.methods.aslp import ASLP

__all__ = [
    "MASK",
    "PARAMS",
    "Frozen",
    "Keys",
    "MaskParam",
    "Masked",
    "Placeholder",
    "unmask",
]

MASK = "mask"
"""Stream of the keys that masks are sampled with."""

PARAMS = "params"
"""Stream of the key that the method starts from."""

_DEFAULT_METHOD = ASLP()

_MISSING = object()

Keys = nnx.Rngs | nnx.RngStream | jax.Array
"""Source of PRNG keys: named streams, one stream, or one key that is used as it is."""


class Frozen(nnx.Variable):
    """Array that nothing trains: a weight, or anything else that a method fixes."""


class MaskParam(nnx.Param):
    """Array that the method learns: logits, scales or scores, or trained weights."""


class Placeholder(nnx.Variable):
    """Empty variable in the wrapped module, where a weight stood.

    The weight itself is in `Masked.frozen` or `Masked.params`. A weight that several
    layers share has one placeholder, which these layers share.

    Attributes:
      path: path of the weight in the tree that the method was given, as strings.
      kind: type of the variable that held the weight.
      options: metadata of the variable that held the weight, as pairs.
    """


class Masked(nnx.Module):
    """Runs an unmodified NNX module on the weights that a method selects.

    Every `nnx.Param` of the module is a weight. The method splits the weights once into
    `frozen` and `params`; an optimiser with `wrt=nnx.Param` reaches `params` alone. The
    rest passes through: batch statistics, streams of keys, caches and sown values of
    the module are read and updated as if the module ran by itself, `train()`, `eval()`
    and `nnx.view` reach its layers, and its methods are called by name
    (`model.encode(x)`). The arguments `sample` and `rngs` are this class's own. What a
    module writes into an `nnx.Param` during a call is dropped.

    The module given is copied and stays as it was. Masks depend on the names of the
    weights (`"conv/kernel"`): a Linen network with the same names, weights and key has
    the same masks. A shared weight has one name, the first of its paths by order, and
    one mask.

    The same subnetwork without this class: `nnx.as_pure(model.frozen)` and
    `nnx.as_pure(model.params)` are the arguments of `model.method.effective_weights`,
    and of every other question to the method, such as its penalty.

    Attributes:
      net: copy of the module, with a `Placeholder` for each weight.
      method: selection rule.
      frozen: pytree of `Frozen`.
      params: pytree of `MaskParam`, by group (`"logits"`, `"scale"`).
      rngs: stream of the mask keys; None where `rngs` had none.

    Example:
      >>> import jax.numpy as jnp
      >>> from aslp_jax import ASLP
      >>> from aslp_jax.nnx import Masked
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0, mask=1)
      >>> model = Masked(nnx.Linear(4, 3, rngs=rngs), ASLP(), rngs=rngs)
      >>> sorted(model.params), sorted(model.params["logits"])
      (['logits', 'scale'], ['kernel'])
      >>> model(jnp.ones((1, 4)), sample=True).shape
      (1, 3)
      >>> gradient = nnx.grad(lambda model: model(jnp.ones((1, 4))).sum())(model)
      >>> gradient["params"]["logits"]["kernel"].shape
      (4, 3)
    """

    def __init__(
        self,
        net: nnx.Module,
        method: Method = _DEFAULT_METHOD,
        *,
        rngs: Keys,
        select: Select = kernels,
        weight_init: Initializer | None = None,
    ) -> None:
        """Splits the weights of a module into what is frozen and what is learnt.

        Args:
          net: module to mask; it is copied.
          method: selection rule; default: `ASLP()`.
          rngs: streams of keys. The method starts from a key of `params`; the model
            keeps a stream forked from `mask`; `default` stands in for either. A single
            stream serves both. A single key is the key that the method starts from, as
            it is, and the model keeps no stream.
          select: from the name of a weight (`"conv/kernel"`) to True if it is masked;
            default: kernels.
          weight_init: initialiser of the masked weights, a function `(key, shape,
            dtype) -> array`; default: None, the module's own weights. The key follows
            from the name of the weight and the key that the method starts from. Fan-in
            is the product of all axes but the last.

        Raises:
          TypeError: `net` is not an NNX module, `method` is a class, `rngs` holds no
            keys, or `weight_init` is not callable or returns no array.
          KeyError: `rngs` has neither a `params` nor a `default` stream.
          ValueError: `select` chooses no weight, or one that is not floating point;
            `weight_init` returns another shape or dtype; or `rngs` is an array of keys.

        Warns:
          ZeroWeightsWarning: a frozen array is all zeros, so that nothing behind it can
            be selected; not seen under `nnx.jit`.
        """
        _check(net, method)
        check_initialiser("aslp_jax.nnx.Masked", weight_init)
        graphdef, weights, *rest = nnx.split(net, nnx.Param, ..., graph=True)
        places, values = [], {}
        for path, variable in nnx.to_flat_state(weights):
            name = tuple(map(str, path))
            values[name] = nnx.as_pure(variable)
            plain = {"hijax": False, "ref": False}
            options = tuple({**variable.get_metadata(), **plain}.items())
            place = Placeholder(
                None, path=name, kind=type(variable), options=options, **plain
            )
            places.append((path, place))
        tree = traverse_util.unflatten_dict(values)
        key = _key(rngs, PARAMS)
        if weight_init is not None:
            tree = initialise(weight_init, key, tree, select=select)
        frozen, params = method.init(key, tree, select=select)
        warn_of_zeros("aslp_jax.nnx.Masked", frozen, select)
        self.net = nnx.merge(graphdef, nnx.from_flat_state(places), *rest, copy=True)
        self.method = method
        self.frozen = nnx.data(jax.tree.map(Frozen, frozen))
        self.params = nnx.data(jax.tree.map(MaskParam, params))
        self.rngs = nnx.data(_fork(rngs, MASK))

    def __call__(
        self, *args: Any, sample: bool = False, rngs: Keys | None = None, **kwargs: Any
    ) -> Any:
        """Runs the module on its selected weights.

        Args:
          *args: arguments of the module.
          sample: True samples the masks; False runs the deterministic network.
          rngs: streams whose `mask` (or `default`) gives the key of the masks, one
            stream, or the key itself; default: the stream of the model. Streams are
            passed on where the module takes an argument of this name, and so is a key
            that no masks are sampled with.
          **kwargs: keyword arguments of the module.

        Returns:
          Output of the module.

        Raises:
          ValueError: `sample` is True, and neither the model nor the call has a stream;
            or the module made a new `nnx.Param`, which no method has seen.
          KeyError: `sample` is True, and `rngs` has no stream `mask` or `default`.
        """
        return self._run("__call__", args, kwargs, sample=sample, rngs=rngs)

    def __getattr__(self, name: str) -> Any:
        # Only names that Masked itself lacks come here; those of the wrapped module's
        # methods become methods of this one. `set_view` is what nnx.view calls, on the
        # wrapped module too.
        net = self.__dict__.get("net")
        method = callable(getattr(type(net), name, None)) and name not in vars(net)
        if name.startswith("_") or name == "set_view" or not method:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )

        def run(
            model: Masked,
            *args: Any,
            sample: bool = False,
            rngs: Keys | None = None,
            **kwargs: Any,
        ) -> Any:
            return model._run(name, args, kwargs, sample=sample, rngs=rngs)

        return types.MethodType(run, self)

    def _run(
        self,
        name: str,
        args: tuple,
        kwargs: dict[str, Any],
        *,
        sample: bool,
        rngs: Keys | None,
    ) -> Any:
        key = None
        if sample:
            source = self.rngs if rngs is None else rngs
            if source is None:
                raise ValueError(
                    f"aslp_jax.nnx.Masked: sample=True needs a stream {MASK!r}; build "
                    "the model with rngs=nnx.Rngs(...), or call it with rngs="
                )
            key = _key(source, MASK)
        weights = self.method.effective_weights(
            nnx.as_pure(self.frozen), nnx.as_pure(self.params), key=key
        )
        net = _with_weights(self.net, weights)
        pairs = _pairs(self.net, net)
        call = getattr(net, name)
        used_up = sample and isinstance(rngs, jax.Array)
        if rngs is not None and not used_up and _takes_rngs(call):
            kwargs = {**kwargs, "rngs": rngs}
        output = call(*args, **kwargs)
        _write_back(pairs)
        return output


def unmask(model: Masked) -> nnx.Module:
    """Returns the module of a model on the weights of its deterministic network.

    Args:
      model: masked module; it stays as it is.

    Returns:
      Module like the one that was masked. Its weights are new variables; it shares all
      other variables with the model.
    """
    weights = model.method.effective_weights(
        nnx.as_pure(model.frozen), nnx.as_pure(model.params)
    )
    return _with_weights(model.net, weights)


def _check(net: Any, method: Any) -> None:
    if not isinstance(net, nnx.Module):
        kind = type(net).__name__
        got = f"{net!r}"
        if isinstance(net, flax.linen.Module):
            got = f"a Linen module {kind}; use aslp_jax.Masked"
        elif isinstance(net, type):
            got = f"the class {net.__name__}; give an instance of it"
        raise TypeError(f"aslp_jax.nnx.Masked: expected a flax.nnx.Module, got {got}")
    check_method("aslp_jax.nnx.Masked", method)


def _has(rngs: nnx.Rngs, stream: str) -> bool:
    return stream in rngs or "default" in rngs


def _key(rngs: Keys, stream: str) -> jax.Array:
    """Returns the next key of a stream, or the key that stands for it."""
    if isinstance(rngs, nnx.Rngs):
        if not _has(rngs, stream):
            raise KeyError(
                f"aslp_jax.nnx.Masked: rngs has no stream {stream!r} and no default; "
                f"it has {list(rngs)}"
            )
        return rngs[stream]()
    if isinstance(rngs, nnx.RngStream):
        return rngs()
    if isinstance(rngs, jax.Array):
        return single_key("aslp_jax.nnx.Masked", rngs)
    raise TypeError(
        "aslp_jax.nnx.Masked: rngs must be a flax.nnx.Rngs, an RngStream or a PRNG "
        f"key, got {rngs!r}"
    )


def _fork(rngs: Keys, stream: str) -> nnx.RngStream | None:
    """Returns a stream of its own for the model, as `nnx.Dropout` has one."""
    if isinstance(rngs, nnx.Rngs):
        return rngs[stream].fork() if _has(rngs, stream) else None
    return rngs.fork() if isinstance(rngs, nnx.RngStream) else None


def _takes_rngs(call: Any) -> bool:
    return "rngs" in inspect.signature(call).parameters


def _with_weights(net: nnx.Module, weights: Any) -> nnx.Module:
    """Returns new modules on the same variables, with weights for the placeholders."""
    graphdef, places, *rest = nnx.split(net, Placeholder, ..., graph=True)
    params = [
        (
            path,
            place.kind.from_metadata(
                functools.reduce(operator.getitem, place.path, weights),
                dict(place.options),
            ),
        )
        for path, place in nnx.to_flat_state(places)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(params), *rest)


def _pairs(net: nnx.Module, copy: nnx.Module) -> list[tuple[Any, Any]]:
    """Returns each module and variable of `net` with its counterpart in a copy."""

    def nodes(root: nnx.Module) -> Iterable[tuple[Any, Any]]:
        for path, node in nnx.iter_graph(root, graph=True):
            if isinstance(node, nnx.Pytree | nnx.Variable):
                yield path, node

    originals = dict(nodes(net))
    return [(originals[path], node) for path, node in nodes(copy)]


def _write_back(pairs: list[tuple[Any, Any]]) -> None:
    """Sets on each module the attributes that a call has changed on its counterpart.

    Values of variables need nothing: a module and its copy share every variable but
    the weights. Attributes that stayed are not touched, so that a model of an outer
    trace can be called wherever a plain module can be.
    """
    originals = {id(copy): original for original, copy in pairs}
    for original, copy in pairs:
        if isinstance(copy, nnx.Variable):
            continue
        before, after = dict(vars(original)), vars(copy)
        for name in before.keys() - after.keys():
            delattr(original, name)
        for name, value in after.items():
            old = before.get(name, _MISSING)
            if name.startswith("_pytree__") or value is old:
                continue
            leaves, tree = _flatten(value)
            leaves = [originals.get(id(leaf), leaf) for leaf in leaves]
            old_leaves, old_tree = _flatten(old)
            if tree != old_tree or any(map(operator.is_not, leaves, old_leaves)):
                _check_no_weight(name, leaves)
                value = jax.tree.unflatten(tree, leaves)
                data = any(map(nnx.is_data, leaves))
                setattr(original, name, nnx.data(value) if data else value)


def _check_no_weight(name: str, leaves: list[Any]) -> None:
    if any(
        isinstance(node, nnx.Param)
        for leaf in leaves
        for _, node in nnx.iter_graph(leaf, graph=True)
    ):
        raise ValueError(
            "aslp_jax.nnx.Masked: the module made a weight during a call, as its "
            f"attribute {name!r}; run the module once before it is masked"
        )


def _flatten(value: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(value, is_leaf=nnx.is_data)
