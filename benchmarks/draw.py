"""Cost of sampling a network's masks and of their gradient, against lower bounds.

    python -m benchmarks.draw

On a CPU: against `torch.nn.functional.gumbel_softmax` on the stacked logits, the way
PyTorch samples such masks, and against generating as many random 32-bit words. On a
GPU: masks times weights, forwards and backwards, against copying the same bytes. The
sides run alternately. Each repeats its work within one program, where outputs reuse
their memory, so that no side pays for fresh pages. Exit code: 0; 1 if a bound is not
met.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aslp_jax import stgs
from aslp_jax.ops import threefry
from benchmarks.timing import Claim, Side, interleave, where

LOGITS = 4_300_992
"""Number of weights of Conv2."""

OVER_PYTORCH, OVER_WORDS, OVER_COPY = 10.0, 1.4, 3.0


def masks(logits: jax.Array, calls: int) -> Side:
    """Samples masks and computes a gradient of their logits, `calls` times."""

    def once(key: jax.Array, given: tuple[jax.Array, jax.Array]) -> Any:
        sampled, pull = jax.vjp(lambda logits: stgs(key, logits), logits)
        # The result depends on the previous iteration, so that XLA removes none.
        return sampled, pull(1 + given[0])[0]

    return _repeated(once, (logits, logits), calls)


def words(count: int, calls: int, bits: Callable[..., jax.Array]) -> Side:
    """Generates `count` random 32-bit words, `calls` times."""

    def once(key: jax.Array, given: jax.Array) -> jax.Array:
        return bits(key, (count,)) ^ given

    return _repeated(once, jnp.zeros((count,), jnp.uint32), calls)


def products(logits: jax.Array, weights: jax.Array, calls: int) -> Side:
    """Computes masks times weights and a gradient of the logits, `calls` times."""

    def once(key: jax.Array, given: tuple[jax.Array, jax.Array]) -> Any:
        def effective(logits: jax.Array) -> jax.Array:
            return stgs(key, logits) * weights

        product, pull = jax.vjp(effective, logits)
        return product, pull(given[0])[0]

    return _repeated(once, (weights, logits), calls)


def copies(logits: jax.Array, weights: jax.Array, calls: int) -> Side:
    """Reads and writes as many bytes as `products`, `calls` times."""

    def once(key: jax.Array, given: tuple[jax.Array, jax.Array]) -> Any:
        del key
        return given[0] + logits, given[1] + weights

    return _repeated(once, (weights, logits), calls)


def pytorch_masks(count: int, calls: int) -> Side:
    """Samples masks and computes their gradient as PyTorch does, `calls` times."""
    import torch

    from benchmarks import pytorch

    logits = torch.randn(count, requires_grad=True)
    given = torch.ones(count)

    def run() -> None:
        for _ in range(calls):
            logits.grad = None
            pytorch.gumbel_mask(logits).backward(given)

    return run


def _repeated(once: Callable[..., Any], start: Any, calls: int) -> Side:
    @jax.jit
    def run(key: jax.Array, start: Any) -> Any:
        def body(index: jax.Array, carry: Any) -> Any:
            return once(jax.random.fold_in(key, index), carry)

        return jax.lax.fori_loop(0, calls, body, start)

    return lambda: run(jax.random.key(0), start)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--logits", type=int, default=LOGITS, help="(default: %(default)s, of Conv2)"
    )
    parser.add_argument("--calls", type=int, default=5, help="calls of one measurement")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    calls, count = options.calls, options.logits
    logits = jax.random.normal(jax.random.key(1), (count,))
    print(f"{where()}; {count:,} logits, float32")
    if jax.default_backend() == "cpu":
        try:
            import torch
        except ImportError:
            parser.error("PyTorch is not installed; pip install torch")
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        sides = {
            "masks and gradient": masks(logits, calls),
            "PyTorch": pytorch_masks(count, calls),
            "jax.random.bits": words(count, calls, jax.random.bits),
            "threefry.bits": words(count, calls, threefry.bits),
        }
    else:
        weights = jax.random.normal(jax.random.key(2), (count,))
        sides = {
            "masks and gradient": products(logits, weights, calls),
            "copy": copies(logits, weights, calls),
        }
    spent = {
        name: 1e3 * seconds / calls
        for name, seconds in interleave(sides, options.repeats).items()
    }
    for name, milliseconds in spent.items():
        print(f"{name:<20}{milliseconds:8.2f} ms")
    own = spent["masks and gradient"]
    if "copy" in spent:
        claims = [Claim("over copying the same bytes", own / spent["copy"], OVER_COPY)]
    else:
        claims = [
            Claim(
                "PyTorch over ours", spent["PyTorch"] / own, OVER_PYTORCH, least=True
            ),
            Claim("over random words", own / spent["jax.random.bits"], OVER_WORDS),
        ]
        faster = own / spent["threefry.bits"]
        print(f"over the library's own, faster words: {faster:.2f} times (no bound)")
    for claim in claims:
        print(claim)
    return 0 if all(claim.met for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
