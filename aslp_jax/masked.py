"""`Masked`: any Flax module, run on a subnetwork of its frozen weights."""

import types
from typing import Any

import flax.linen as nn
from flax.core.scope import subtract_filters

from aslp_jax._tree import Select, kernels
from aslp_jax.methods import Method
from aslp_jax.methods.aslp import ASLP

FROZEN = "frozen"
PARAMS = "params"


class Masked(nn.Module):
    """Runs an unmodified Flax module on the weights that a method selects.

    The module's own weights are drawn by its own initialisers and stay in the `frozen`
    collection; `params` holds only what the method learns, so an optimiser given
    `params` cannot touch a weight. The rest of the module passes through: other
    collections (batch statistics, sown intermediates), the streams of `rngs`,
    arguments, and its methods, by name only:
    `model.apply(variables, x, method="encode")`. The argument `sample` is this class's
    own.

    The same subnetwork without this class, given `weights` and `params` from
    `method.init`, is
    `net.apply({"params": method.effective_weights(weights, params)}, x)`.

    Attributes:
      net: the module to mask.
      method: how weights are selected.
      select: from the name of a weight (`"Conv_0/kernel"`) to whether it is masked;
        default: kernels.

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

    def __call__(self, *args: Any, sample: bool = False, **kwargs: Any) -> Any:
        """Runs the module on its selected weights.

        Args:
          *args: arguments of the module.
          sample: True draws the masks from the `mask` stream of `rngs`; False runs the
            deterministic network.
          **kwargs: keyword arguments of the module.

        Returns:
          What the module returns.

        Raises:
          KeyError: the variables lack the `params` collection, or a frozen weight that
            the params name.
          flax.errors.InvalidRngError: `sample` is True and `rngs` has no `mask` stream.
        """
        return self._run("__call__", args, kwargs, sample=sample)

    def __getattr__(self, name: str) -> Any:
        # Only names that Masked itself lacks come here; those of the wrapped module's
        # methods become methods of this one.
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
            frozen, params = self.method.init(
                self.make_rng("params"), weights, select=self.select
            )
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
