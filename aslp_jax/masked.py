"""`Masked`: a Flax Linen module that runs on a subnetwork of its frozen weights."""

import types
from typing import Any

import flax.core
import flax.linen as nn
from flax.core.scope import subtract_filters
from flax.errors import ScopeParamNotFoundError
from flax.typing import Initializer

from aslp_jax._checks import check_method
from aslp_jax._initialise import check_initialiser, initialise
from aslp_jax._tree import Select, kernels
from aslp_jax._zeros import ZeroWeightsWarning, warn_of_zeros
from aslp_jax.methods import Method
from aslp_jax.methods.aslp import ASLP

__all__ = ["FROZEN", "PARAMS", "Masked", "ZeroWeightsWarning"]

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

    Inside another module it behaves as the plain one: several methods may be called at
    init, the first of which must reach a masked weight; intermediates are captured,
    and lifted transforms serve around it and inside it. Transforms that list
    collections (`nn.scan`, `nn.vmap`, `nn.map_variables`) need `frozen` beside
    `params`, and the stream `mask` beside `params`. Not possible are transforms that
    Flax refuses for a module that holds another one (`nn.vjp`, `nn.jvp`,
    `nn.custom_vjp` of `Masked` itself), and a network that is also called unmasked in
    the module around: weights are not shared with it, which is an error where it shows.

    At init a warning names frozen arrays that are all zeros, behind which nothing can
    be selected: a head or a last normalisation scale that starts at zero. Values are
    not seen under `jax.jit`; `train.create` looks at them afterwards.

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

    Warns:
      ZeroWeightsWarning: a frozen array is all zeros, at init.

    Raises:
      TypeError: `net` is no Linen module, `method` is a class or no method, or
        `weight_init` is not callable.

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
        check_method("Masked", self.method)
        check_initialiser("Masked", self.weight_init)
        # Key and weights of the calls that initialise this bound module.
        object.__setattr__(self, "_initial", None)
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
        self._check_not_shared()
        scope: Any = self.scope
        key = self.make_rng("mask") if sample else None
        rngs = {stream: self.make_rng(stream) for stream in scope.rngs}

        def call(weights: Any, rest: dict[str, Any], mutable: Any) -> tuple[Any, Any]:
            def run(root: Any) -> Any:
                # As `Module.apply` does, which would capture no intermediates here.
                net = self.net.clone(parent=root, _deep_clone=True)
                return getattr(net, name)(*args, **kwargs)

            apply = flax.core.apply(run, mutable=mutable or (), flags=scope.flags)
            return apply({"params": weights, **rest}, rngs=rngs)

        rest: dict[str, Any] = dict(self.variables)
        first = self.is_initializing() and PARAMS not in rest
        if first or self._initial is not None:
            return self._initialise(call, rest)
        # A method that trains the weights themselves leaves nothing frozen.
        frozen, params = rest.pop(FROZEN, {}), rest.pop(PARAMS, None)
        if params is None:
            raise KeyError(
                f"Masked: no collection {PARAMS!r} in the variables, which hold "
                f"{sorted(self.variables)}; they come from this model's own init"
            )
        try:
            weights = self.method.effective_weights(frozen, params, key=key)
        except KeyError as error:
            if FROZEN in self.variables:
                raise
            raise KeyError(
                f"Masked: {error.args[0]}, as the variables have no collection "
                f"{FROZEN!r}; a lifted transform needs it beside {PARAMS!r}"
            ) from error
        mutable = subtract_filters(scope.mutable, (FROZEN, PARAMS))
        try:
            output, updates = call(weights, rest, mutable)
        except ScopeParamNotFoundError as error:
            if not self.is_initializing():
                raise
            raise ValueError(
                f"Masked: at init {name!r} needs weights that the calls before it did "
                "not make, and a lifted transform keeps them apart; call all methods "
                "inside the transform, or initialise the module by itself"
            ) from error
        self._put(updates)
        return output

    def _initialise(self, call: Any, rest: dict[str, Any]) -> Any:
        """Runs the module on its own weights, those of earlier calls of this init."""
        if not self.is_mutable_collection(FROZEN):
            raise ValueError(
                f"Masked: the collection {FROZEN!r} cannot be written at init; a "
                f"lifted transform needs it beside {PARAMS!r}, and so does mutable="
            )
        key, weights = self._initial or (None, {})
        rest.pop(FROZEN, None), rest.pop(PARAMS, None)
        scope: Any = self.scope
        output, variables = call(weights, rest, scope.mutable)
        weights = nn.meta.unbox(variables.pop("params"))
        key = self.make_rng("params") if key is None else key
        object.__setattr__(self, "_initial", (key, weights))
        if self.weight_init is not None:
            weights = initialise(self.weight_init, key, weights, select=self.select)
        frozen, params = self.method.init(key, weights, select=self.select)
        warn_of_zeros("Masked", frozen, self.select)
        self._put({FROZEN: frozen, PARAMS: params, **variables})
        return output

    @nn.nowrap
    def sow(self, col: str, name: str, value: Any, *args: Any, **kwargs: Any) -> bool:
        """Sows a value, as `Module.sow`, but not one that is the last one there.

        Flax captures the result of the wrapped module and then, under the same name,
        that of this one, which is the same value.
        """
        held: Any = self.variables.get(col, {}).get(name)
        if isinstance(held, tuple) and held and held[-1] is value:
            return True
        return super().sow(col, name, value, *args, **kwargs)

    def _check_not_shared(self) -> None:
        net = self.net
        if net.scope is not None and net.variables.get("params"):
            raise ValueError(
                f"Masked: its network {net.name!r} has weights of its own in the "
                "module around; weights cannot be shared with unmasked calls, so mask "
                "a module that is used nowhere else"
            )

    def _put(self, collections: Any) -> None:
        for collection, variables in collections.items():
            for name, value in variables.items():
                self.put_variable(collection, name, value)
