"""One optax chain: each group of selectors learns by its own rule."""

from collections.abc import Mapping

import jax
import optax


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

    def labels(params: Mapping[str, object]) -> dict[str, object]:
        for group in params:
            if group not in learning_rates:
                raise KeyError(
                    f"sgd_by_group: no learning rate for {group!r}; "
                    f"given for {sorted(learning_rates)}"
                )
        return {
            group: jax.tree.map(lambda _, g=group: g, tree)
            for group, tree in params.items()
        }

    return optax.partition(
        {group: optax.sgd(rate, momentum) for group, rate in learning_rates.items()},
        labels,
    )
