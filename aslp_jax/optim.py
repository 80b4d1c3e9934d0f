"""One optax chain: each group of params learns by its own rule."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax


def by_group(
    rules: Mapping[str, optax.GradientTransformation],
    *,
    default: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Gives each group of what is learnt a transformation of its own.

    Args:
      rules: from group (`"logits"`, `"scale"`) to its transformation; a group that a
        method does not learn may be named all the same.
      default: of the groups that `rules` does not name; None refuses them.

    Returns:
      A transformation for trees whose top level is the groups.

    Raises:
      KeyError: (at `init`) the tree has a group without a rule, and there is no
        default.
    """
    others = "other groups"
    transforms: dict[str, optax.GradientTransformation] = dict(rules)
    if default is not None:
        transforms[others] = default

    def labels(params: Mapping[str, object]) -> dict[str, object]:
        for group in params:
            if group not in rules and default is None:
                raise KeyError(
                    f"by_group: no rule for {group!r}; given for {sorted(rules)}"
                )
        return {
            group: jax.tree.map(lambda _, g=group: g if g in rules else others, tree)
            for group, tree in params.items()
        }

    return optax.partition(transforms, labels)


def relative_sign_sgd(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    """Moves each parameter by a part of itself, against the sign of its gradient.

    What starts above 0 stays there, and is halved or doubled in as many steps wherever
    it stands and however large its gradient is. The sharpness of `methods.Budget` needs
    this: it can fall from 100 to some 6, where its gradient is hundreds of times that
    of the start, and a step across 0 cuts off every weight, with no gradient back.

    Args:
      learning_rate: in (0, 1), the part of itself that a parameter moves in a step.

    Returns:
      A transformation whose `update` needs the parameters.
    """

    def times_itself(updates: optax.Updates, params: optax.Params) -> optax.Updates:
        return jax.tree.map(
            lambda update, parameter: update * jnp.abs(parameter), updates, params
        )

    return optax.chain(optax.sign_sgd(learning_rate), optax.stateless(times_itself))


def sgd_by_group(
    learning_rates: Mapping[str, optax.ScalarOrSchedule], *, momentum: float = 0.9
) -> optax.GradientTransformation:
    """SGD with momentum, with a learning rate for each group of what is learnt.

    Logits and scales live on different footings: the paper's rate for logits is 50, and
    at that rate a scale diverges within an epoch.

    Args:
      learning_rates: from group (`"logits"`, `"scale"`) to its rate, > 0; a group that
        a method does not learn may be named all the same.
      momentum: in [0, 1); no decay of any kind is applied.

    Returns:
      A transformation for trees whose top level is the groups.

    Raises:
      ValueError: `momentum` is outside [0, 1), or a rate is not positive.
      KeyError: (at `init`) the tree has a group without a rate.

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
