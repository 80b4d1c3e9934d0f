"""Optimisers that give each group of `params` a rule of its own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aslp_jax._tree import path_name

if TYPE_CHECKING:
    from aslp_jax.train import TrainState

__all__ = [
    "Ema",
    "averaged",
    "by_group",
    "relative_sign_sgd",
    "sgd_by_group",
    "with_ema",
]


class Ema(NamedTuple):
    """State of an optimiser that keeps moving averages of the params.

    Attributes:
      inner: state of the optimiser itself.
      mean: moving averages, of the structure, shapes and dtypes of the params.
    """

    inner: optax.OptState
    mean: optax.Params


def with_ema(
    optimiser: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
    """Keeps exponential moving averages (EMA) of the params beside an optimiser.

    After each step `mean = decay * mean + (1 - decay) * params`; it starts as the
    params do. The steps are those of the optimiser alone. `averaged` takes the averages
    out of a state.

    Args:
      optimiser: optimiser of the params.
      decay: weight of the average before, in [0, 1).

    Returns:
      Transformation whose state is an `Ema` and whose `update` needs the params.

    Raises:
      ValueError: `decay` is outside [0, 1).

    Source: Polyak and Juditsky 1992, with weights that decay.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"with_ema: decay must be in [0, 1), got {decay}")

    def init(params: optax.Params) -> Ema:
        return Ema(optimiser.init(params), jax.tree.map(jnp.copy, params))

    def update(
        updates: optax.Updates, state: optax.OptState, params: Any = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None or not isinstance(state, Ema):
            raise ValueError("with_ema: update needs the params, and a state of init")
        updates, inner = optimiser.update(updates, state.inner, params)
        moved = optax.apply_updates(params, updates)
        # 0 times an infinite logit would be NaN.
        mean = (
            optax.incremental_update(moved, state.mean, 1 - decay) if decay else moved
        )
        return updates, Ema(inner, mean)

    return optax.GradientTransformation(init, update)


def averaged(state: "TrainState") -> "TrainState":
    """Returns a train state whose params are their moving averages.

    Args:
      state: state whose optimiser is one of `with_ema`.

    Raises:
      TypeError: the optimiser keeps no averages.
    """
    if not isinstance(state.opt_state, Ema):
        raise TypeError(
            "averaged: the optimiser of the state keeps no averages; make it with "
            "optim.with_ema"
        )
    return state.replace(params=state.opt_state.mean)


def by_group(
    rules: Mapping[str, optax.GradientTransformation],
    *,
    default: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Gives each group of `params` a transformation of its own.

    Args:
      rules: group (`"logits"`, `"scale"`) to its transformation. Groups that the tree
        lacks are ignored.
      default: transformation of the groups without a rule; None (default) refuses them.

    Returns:
      Transformation of trees that hold the groups at any level: `params` of `Masked`,
      the state of an `aslp_jax.nnx.Masked`, which holds them below `params`, or the
      params of a module with `Masked` layers, where each layer holds its own. Dicts
      and FrozenDicts are alike. The outermost group of a path counts. A single array
      is no group, whatever its name: the `scale` of a plain normalisation layer beside
      a `Masked` one follows the default.

    Raises:
      KeyError: raised by `init` if a group has no rule and there is no default.
    """
    others = "other groups"
    transforms: dict[str, optax.GradientTransformation] = dict(rules)
    if default is not None:
        transforms[others] = default

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = [path_name((entry,)) for entry in path]
        # The state of an NNX model has one level more.
        names = names[1:] if names[0] == "params" and names[1:] else names
        for name in names[:-1] or names:
            if name in rules:
                return name
        if default is None:
            raise KeyError(
                f"by_group: no rule for {names[0]!r}; given for {sorted(rules)}; "
                "default= takes what has no rule"
            )
        return others

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(label, params)

    return optax.partition(transforms, labels)


def relative_sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    """Multiplies each parameter p by 1 - learning_rate * sign(p * gradient).

    The step ignores the magnitude of the gradient, and a positive parameter stays
    positive. The sharpness of `methods.Budget` needs both: it can fall from 100 to
    about 6, where its gradient is hundreds of times larger than at the start, and a
    negative or zero sharpness would drop every weight and get no gradient back.

    Args:
      learning_rate: relative change of a parameter in one step, in (0, 1).

    Returns:
      Transformation whose `update` needs the parameters.
    """

    def scale_by_parameter(
        updates: optax.Updates, params: optax.Params
    ) -> optax.Updates:
        return jax.tree.map(
            lambda update, parameter: update * jnp.abs(parameter), updates, params
        )

    return optax.chain(
        optax.sign_sgd(learning_rate), optax.stateless(scale_by_parameter)
    )


def sgd_by_group(
    learning_rates: Mapping[str, optax.ScalarOrSchedule], *, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Returns SGD with momentum that has a learning rate for each group of `params`.

    The paper's learning rate for logits is 50; at this rate a scale would diverge
    within an epoch. No weight decay is applied.

    Args:
      learning_rates: group (`"logits"`, `"scale"`) to its learning rate, > 0. Groups
        that the tree lacks are ignored.
      momentum: fraction of the last update, in [0, 1), default 0.9.

    Returns:
      Transformation of trees that hold the groups at any level, as `by_group`.

    Raises:
      ValueError: `momentum` is outside [0, 1), or a rate is not positive.
      KeyError: raised by `init` if a group has no learning rate.

    Source: Dupont et al. 2022, section 3.1, and the code published with it.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"sgd_by_group: momentum must be in [0, 1), got {momentum}")

    for group, rate in learning_rates.items():
        if not callable(rate) and not rate > 0:
            raise ValueError(
                f"sgd_by_group: the rate of {group!r} must be positive, got {rate}"
            )
    return by_group(
        {group: optax.sgd(rate, momentum) for group, rate in learning_rates.items()}
    )
