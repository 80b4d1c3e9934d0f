"""`Masked`: a Flax Linen module that runs on a subnetwork of its frozen weights."""

import types
from typing import Any

import flax.linen as nn
from flax.core.scope import subtract_filters
from flax.typing import Initializer

from aslp_jax._initialise import check_initialiser, initialise
from aslp_jax._tree import Select, kernels
from aslp_jax.methods import Method
from aslp_jax.methods.aslp import ASLP

__all__ = ["FROZEN", "PARAMS", "Masked"]

FROZEN = "frozen"
"""Name of the collection of frozen weights."""

PARAMS = "params"
"""Name of the collection of trained arrays: logits, scales, scores or weights."""


class Masked(nn.Module):
    """Flax module that runs another one, unmodified, on its effective weights.

    The module initialises its own weights, which stay in the `frozen` collection.
    `params` holds only the arrays that the method trains, so an optimiser given
    `params` cannot change a frozen weight. Everything else passes through: other
    collections (batch statistics, sown intermediates), the streams of `rngs`,
    arguments, and methods, by name only:
    `model.apply(variables, x, method="encode")`. Only the argument `sample` belongs to
    this class.

    Without this class, `frozen` and `params` from `method.init` give the same
    subnetwork: `net.apply({"params": method.effective_weights(frozen, params)}, x)`.

    Attributes:
      net: module to mask.
      method: method that selects the weights, default `ASLP()`.
      select: function from the name of a weight (`"Conv_0/kernel"`) to True if it is
        masked, default `kernels`.
      weight_init: initialiser of the masked weights, a function `(key, shape, dtype) ->
        array`; default None, the module's own initialisers. The key follows from the
        name of the weight and the key of `method.init`. Fan-in is the product of all
        axes but the last. The result of `init_with_output` is still that of the
        module's own weights.

    Raises:
      TypeError: `net` is no Linen module, `method` is a class, or `weight_init` is not
        callable.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> from aslp_jax import ASLP, Masked
      >>> model = Masked(nn.Dense(3), ASLP())
      >>> x = jnp.ones((1, 4))
      >>> variables = model.init(jax.random.key(0), x)
      >>> sorted(variables), sorted(variables["params"])
      (['frozen', 'params'], ['logits', 'scale'])
      >>> rngs = {"mask": jax.random.key(1)}
      >>> model.apply(variables, x, sample=True, rngs=rngs).shape
      (1, 3)
    """

    net: nn.Module
    method: Method = ASLP()
    select: Select = kernels
    weight_init: Initializer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.net, nn.Module):
            found = f"{self.net!r}"
            if isinstance(self.net, type):
                found = f"the class {self.net.__name__}; give an instance of it"
            elif hasattr(self.net, "set_attributes"):
                kind = type(self.net).__name__
                found = f"an NNX module {kind}; use aslp_jax.nnx.Masked"
            raise TypeError(f"Masked: expected a flax.linen.Module, got {found}")
        if isinstance(self.method, type):
            name = self.method.__name__
            raise TypeError(
                f"Masked: expected a method, got the class {name}; write {name}()"
            )
        check_initialiser("Masked", self.weight_init)
        super().__post_init__()

    def __call__(self, *args: Any, sample: bool = False, **kwargs: Any) -> Any:
        """Runs the module on its effective weights.

        Args:
          *args: arguments of the module.
          sample: True samples the masks from the `mask` stream of `rngs`; False
            (default) runs the deterministic network.
          **kwargs: keyword arguments of the module.

        Returns:
          Result of the module.

        Raises:
          KeyError: the variables lack the `params` collection, or a frozen weight that
            the params name.
          flax.errors.InvalidRngError: `sample` is True and `rngs` has no `mask` stream.
        """
        return self._run("__call__", args, kwargs, sample=sample)

    def __getattr__(self, name: str) -> Any:
        # Python calls this only for names that Masked lacks. The methods of the wrapped
        # module become methods of this one.
        kind = type(self.__dict__.get("net"))
        field = name in getattr(kind, "__dataclass_fields__", ())
        if name.startswith("_") or field or not callable(getattr(kind, name, None)):
            return super().__getattr__(name)

        def run(module: Masked, *args: Any, sample: bool = False, **kwargs: Any) -> Any:
            return module._run(name, args, kwargs, sample=sample)

        return types.MethodType(run, self)

    def _run(self, name: str, args: tuple, kwargs: dict, *, sample: bool) -> Any:
        net = self.net.clone(parent=None)
        scope: Any = self.scope
        key = self.make_rng("mask") if sample else None
        rngs = {stream: self.make_rng(stream) for stream in scope.rngs}
        if self.is_initializing() and PARAMS not in self.variables:
            output, variables = net.init_with_output(rngs, *args, method=name, **kwargs)
            weights = nn.meta.unbox(variables.pop("params"))
            key = self.make_rng("params")
            if self.weight_init is not None:
                weights = initialise(self.weight_init, key, weights, select=self.select)
            frozen, params = self.method.init(key, weights, select=self.select)
            self._put({FROZEN: frozen, PARAMS: params, **variables})
            return output

        rest: dict[str, Any] = dict(self.variables)
        # A method that trains the weights themselves leaves nothing frozen.
        frozen, params = rest.pop(FROZEN, {}), rest.pop(PARAMS, None)
        if params is None:
            raise KeyError(
                f"Masked: no collection {PARAMS!r} in the variables, which hold "
                f"{sorted(self.variables)}; they come from this model's own init"
            )
        weights = self.method.effective_weights(frozen, params, key=key)
        mutable = subtract_filters(scope.mutable, (FROZEN, PARAMS))
        output, updates = net.apply(
            {"params": weights, **rest},
            *args,
            rngs=rngs,
            method=name,
            mutable=mutable or (),
            **kwargs,
        )
        self._put(updates)
        return output

    def _put(self, collections: Any) -> None:
        for collection, variables in collections.items():
            for name, value in variables.items():
                self.put_variable(collection, name, value)
