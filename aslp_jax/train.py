"""The train state, the pure step, and many steps as one compiled program.

Long for its contracts: what a step promises under `jit`, `pmap` and `shard_map` is said
here, where it is kept.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aslp_jax.masked import FROZEN, PARAMS, Masked

BATCH = "batch"
"""Name of the mesh axis over which the examples of a batch are spread."""

SEED = "seed"
"""Name of the mesh axis over which runs of different seeds are spread."""

Prepare = Callable[[jax.Array, jax.Array], jax.Array]
"""From a key and uint8 images to what the network takes."""


class TrainState(flax.struct.PyTreeNode):
    """All that a step reads and returns.

    Attributes:
      step: int32 scalar, steps taken so far.
      frozen: weights that nothing changes.
      params: what is learnt, by group.
      collections: the network's other collections (batch statistics), may be empty.
      opt_state: the optimiser's state, of `params` alone.
    """

    step: jax.Array
    frozen: Any
    params: Any
    collections: Mapping[str, Any]
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the `Masked` model, as its `init` returned them."""
        return {FROZEN: self.frozen, PARAMS: self.params, **self.collections}


class Totals(flax.struct.PyTreeNode):
    """Sums over the steps of an epoch, kept on the device.

    Attributes:
      loss: float32 scalar, sum over steps of the mean training loss; not finite once a
        step's was not.
      correct: int32 scalar, training images classified rightly by the drawn networks.
      steps: int32 scalar, steps summed.
    """

    loss: jax.Array
    correct: jax.Array
    steps: jax.Array

    @classmethod
    def zeros(cls) -> "Totals":
        """Returns the totals of no steps."""
        # Three buffers of their own: donating one buffer twice is an error.
        return cls(
            loss=jnp.zeros((), jnp.float32),
            correct=jnp.zeros((), jnp.int32),
            steps=jnp.zeros((), jnp.int32),
        )


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the PRNG key of a named stream, independent of the other names'.

    Args:
      key: PRNG key; may be given again, for another name.
      name: of the stream.

    Returns:
      A PRNG key.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def create(
    model: Masked,
    optimiser: optax.GradientTransformation,
    key: jax.Array,
    inputs: jax.Array,
) -> TrainState:
    """Draws the weights of a masked network and starts what is learnt.

    Args:
      model: the network and its method; the network is called with `train=False`.
      optimiser: of the learnt groups, such as `optim.sgd_by_group`.
      key: PRNG key of the weights.
      inputs: one batch of inputs; only shape and dtype matter.

    Returns:
      The state before the first step.
    """
    variables = jax.jit(functools.partial(model.init, train=False))(key, inputs)
    frozen, params = variables.pop(FROZEN, {}), variables.pop(PARAMS)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        frozen=frozen,
        params=params,
        collections=variables,
        opt_state=optimiser.init(params),
    )


def step(
    state: TrainState,
    inputs: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    *,
    model: Masked,
    optimiser: optax.GradientTransformation,
    micro_batch: int | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, jax.Array, jax.Array]:
    """Draws one network, and moves what is learnt down the gradient of its loss.

    The masks are drawn once. The gradient with respect to the effective weights is
    summed over micro-batches and pulled through the masks once, which gives the
    gradient of the undivided batch (batch statistics and dropout, where a network has
    them, see one micro-batch at a time).

    Without `axis_name` the step is a plain function of the whole batch; under `jit`
    with inputs sharded over a mesh it runs on all its devices. With `axis_name` it is
    one device's share under `pmap` or `shard_map`: give every device the same key and
    state; losses and gradients are averaged over the axis.

    Args:
      state: the state before.
      inputs: `[batch, ...]`, what the network takes.
      labels: int32 `[batch]`.
      key: PRNG key of this step.
      model: the network and its method; the network is called with `train=True`.
      optimiser: of the learnt groups.
      micro_batch: examples a forward pass, a divisor of the batch; None takes all.
      axis_name: the mapped axis over which the batch is spread.

    Returns:
      The state after, the batch's mean loss (float32 scalar, penalty included) and its
      rightly classified examples (int32 scalar), over all devices.

    Raises:
      ValueError: `micro_batch` does not divide the batch.
    """
    net, method = model.net, model.method
    mask_key, dropout_key = stream(key, "mask"), stream(key, "dropout")
    weights = method.effective_weights(state.frozen, state.params, key=mask_key)
    collections = state.collections
    if axis_name is not None:
        # Weights that vary by device keep autodiff from summing their gradient over the
        # axis (shard_map would, pmap would not), so that one explicit mean serves both.
        weights, collections = _vary((weights, collections), axis_name)
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_name))

    def task(weights, collections, inputs, labels, key):
        logits, collections = net.apply(
            {"params": weights, **collections},
            inputs,
            train=True,
            rngs={"dropout": key},
            mutable=list(collections),
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        predicted = jnp.argmax(logits, -1).astype(labels.dtype)
        correct = jnp.sum(predicted == labels, dtype=jnp.int32)
        return loss, (correct, dict(collections))

    loss, correct, gradient, collections = _accumulate(
        jax.value_and_grad(task, has_aux=True),
        (weights, collections, inputs, labels, dropout_key),
        micro_batch,
        axis_name,
    )
    if axis_name is not None:
        loss, gradient, collections = jax.lax.pmean(
            (loss, gradient, collections), axis_name
        )
        correct = jax.lax.psum(correct, axis_name)

    # Masks and noise are drawn again for the gradient rather than kept over the step:
    # one pass over the logits, against 8 to 12 bytes of each.
    params, again = _after(loss, state.params, mask_key)
    _, pull = jax.vjp(
        lambda params: method.effective_weights(state.frozen, params, key=again), params
    )
    penalty, penalty_gradient = jax.value_and_grad(method.penalty, argnums=1)(
        state.frozen, state.params
    )
    gradients = jax.tree.map(jnp.add, pull(gradient)[0], penalty_gradient)
    updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        collections=collections,
        opt_state=opt_state,
    )
    loss = loss.astype(jnp.float32) + penalty.astype(jnp.float32)
    return state, loss, correct


def _after(loss: jax.Array, params: Any, key: jax.Array) -> tuple[Any, jax.Array]:
    """The parameters and the key, as far as a compiler can tell not those of before.

    Else it would see that the masks of the gradient are those of the forward pass, and
    keep them; `jax.checkpoint` does not stop it on a CPU, where its barriers are taken
    out first (jax 0.10). They differ only where the loss is NaN, and the gradient too.
    """
    lost = jnp.isnan(loss)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.where(lost, jnp.nan, 0.0).astype(leaf.dtype), params
    )
    return params, jax.lax.select(lost, jax.random.fold_in(key, 0), key)


def _accumulate(value_and_grad, arguments, micro_batch, axis_name):
    """Mean loss and gradient, correct answers and last collections of a batch."""
    weights, collections, inputs, labels, key = arguments
    batch = labels.shape[0]
    micro_batch = batch if micro_batch is None else min(micro_batch, batch)
    if batch % micro_batch:
        raise ValueError(
            f"step: micro_batch {micro_batch} does not divide the batch of {batch}"
        )
    count = batch // micro_batch
    if count == 1:
        (loss, (correct, collections)), gradient = value_and_grad(
            weights, collections, inputs, labels, key
        )
        return loss, correct, gradient, collections

    def divide(array: jax.Array) -> jax.Array:
        # Rows stay the leading axis until the swap, so that a batch sharded over
        # devices is divided within each device, without traffic between them.
        return array.reshape(micro_batch, count, *array.shape[1:]).swapaxes(0, 1)

    def add(carry, part):
        loss, correct, gradient, collections = carry
        (part_loss, (part_correct, collections)), part_gradient = value_and_grad(
            weights, collections, *part
        )
        gradient = jax.tree.map(jnp.add, gradient, part_gradient)
        return (loss + part_loss, correct + part_correct, gradient, collections), None

    start = (jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
    if axis_name is not None:
        start = _vary(start, axis_name)
    parts = (divide(inputs), divide(labels), jax.random.split(key, count))
    (loss, correct, gradient, collections), _ = jax.lax.scan(
        add, (*start, jax.tree.map(jnp.zeros_like, weights), collections), parts
    )
    return (
        loss / count,
        correct,
        jax.tree.map(lambda leaf: leaf / count, gradient),
        collections,
    )


def _vary(tree: Any, axis_name: str) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis_name, to="varying"), tree)


def steps(
    state: TrainState,
    totals: Totals,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    epoch: jax.Array,
    start: jax.Array,
    stop: jax.Array,
    *,
    batch_size: int,
    prepare: Prepare,
    mesh: Mesh | None = None,
    **options: Any,
) -> tuple[TrainState, Totals]:
    """Takes steps `start` to `stop` of an epoch as one program, all data on the device.

    The bounds are traced: the same compiled program runs a whole epoch at once or,
    where steps are slow, a few at a time with the same result bit for bit. It ends
    early after a step whose loss is not finite. Order, augmentation and masks follow
    from `key` and the numbers of epoch and step alone.

    Args:
      state: the state before, donated by `compile_steps`.
      totals: sums over the epoch so far, donated too.
      images: uint8 `[examples, ...]`, the whole training set.
      labels: int32 `[examples]`.
      key: the run's root PRNG key.
      epoch: int32 scalar, numbers the order of the examples.
      start: int32 scalar, first step of the epoch to take.
      stop: int32 scalar, step before which to stop, at most `examples // batch_size`;
        the examples left over sit out the epoch (others in each).
      batch_size: examples a step, over all devices.
      prepare: from key and uint8 images to the network's inputs (augmentation).
      mesh: devices over whose axis `"batch"` each batch is spread.
      **options: of `step`.

    Returns:
      The state after and the totals over the epoch so far.
    """
    examples = labels.shape[0]
    order_key = jax.random.fold_in(stream(key, "order"), epoch)
    order = jax.random.permutation(order_key, examples)

    def proceed(carry):
        index, _, totals = carry
        return (index < stop) & jnp.isfinite(totals.loss)

    def advance(carry):
        index, state, totals = carry
        chosen = jax.lax.dynamic_slice_in_dim(order, index * batch_size, batch_size)
        if mesh is not None:
            spread = NamedSharding(mesh, PartitionSpec(BATCH))
            chosen = jax.lax.with_sharding_constraint(chosen, spread)
        step_key = jax.random.fold_in(key, state.step)
        inputs = prepare(stream(step_key, "augment"), images[chosen])
        state, loss, correct = step(state, inputs, labels[chosen], step_key, **options)
        totals = Totals(
            loss=totals.loss + loss,
            correct=totals.correct + correct,
            steps=totals.steps + 1,
        )
        return index + 1, state, totals

    _, state, totals = jax.lax.while_loop(proceed, advance, (start, state, totals))
    return state, totals


def compile_steps(
    *, seeds: Mesh | None = None, **options: Any
) -> Callable[..., tuple[TrainState, Totals]]:
    """Returns `steps` with its options bound and compiled.

    The state and totals given to it are donated: their buffers are reused, and the
    caller's arrays are gone. Copy first what must be kept.

    Args:
      seeds: None for one run. A mesh with the axis `"seed"` makes several runs that
        differ in their seed one program: state, totals, images, labels and key have a
        leading axis `[runs]`, a multiple of the devices and spread over them, while
        epoch, start and stop are common. One run a device computes what it would alone;
        more are vectorised (`jax.vmap`), which sums in another order.
      **options: the keyword arguments of `steps`; not `mesh` where `seeds` is given.

    Returns:
      `steps` of its positional arguments.
    """
    run: Callable[..., Any] = functools.partial(steps, **options)
    if seeds is not None:
        run = _each_seed(run, seeds)
    return jax.jit(run, donate_argnums=(0, 1))


def _each_seed(run: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    def on_device(parts: Any, *common: jax.Array) -> Any:
        alone = jax.tree.leaves(parts)[0].shape[0] == 1
        if not alone:
            return jax.vmap(lambda parts: run(*parts, *common))(parts)
        result = run(*jax.tree.map(lambda leaf: leaf[0], parts), *common)
        return jax.tree.map(lambda leaf: leaf[None], result)

    spread = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(PartitionSpec(SEED), *3 * (PartitionSpec(),)),
        out_specs=PartitionSpec(SEED),
        # Devices exchange nothing, so that nothing varies unduly.
        check_vma=False,
    )
    return lambda *arguments: spread(arguments[:5], *arguments[5:])
