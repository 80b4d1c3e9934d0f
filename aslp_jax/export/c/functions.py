"""Functions of numbers in C: an expression each, and the function that applies them."""

from collections.abc import Collection, Mapping

from aslp_jax.export.operations import BINARY, UNARY

__all__ = ["EXPRESSIONS", "SUPPORTED", "apply", "enumerator", "needs_library"]

EXPRESSIONS: Mapping[str, str] = {
    "abs": "{x} < 0 ? -{x} : {x}",
    "add": "{x} + {y}",
    "add_relu": "{x} + {y} < 0 ? 0 : {x} + {y}",
    "ceil": "ceilf({x})",
    "copy": "{x}",
    "cos": "cosf({x})",
    "div": "{x} / {y}",
    "eq": "{x} == {y} ? 1.0f : 0.0f",
    "erf": "erff({x})",
    "erfc": "erfcf({x})",
    "exp": "expf({x})",
    "expm1": "expm1f({x})",
    "floor": "floorf({x})",
    "ge": "{x} >= {y} ? 1.0f : 0.0f",
    "gt": "{x} > {y} ? 1.0f : 0.0f",
    "le": "{x} <= {y} ? 1.0f : 0.0f",
    "log": "logf({x})",
    "log1p": "log1pf({x})",
    "logistic": "1 / (1 + expf(-{x}))",
    "lt": "{x} < {y} ? 1.0f : 0.0f",
    "max": "{x} < {y} ? {y} : {x}",
    "min": "{y} < {x} ? {y} : {x}",
    "mul": "{x} * {y}",
    "multiply_add": "{x} + {y} * {z}",
    "ne": "{x} != {y} ? 1.0f : 0.0f",
    "neg": "-{x}",
    "pow": "powf({x}, {y})",
    "rsqrt": "1 / sqrtf({x})",
    "select": "{x} != 0 ? {z} : {y}",
    "sign": "(float)(({x} > 0) - ({x} < 0))",
    "sin": "sinf({x})",
    "sqrt": "sqrtf({x})",
    "sub": "{x} - {y}",
    "tanh": "tanhf({x})",
}
"""Expressions of up to three operands, by function; those of a graph and a few more."""

SUPPORTED = tuple(sorted(EXPRESSIONS.keys() & (UNARY.keys() | BINARY.keys())))
"""Functions of a graph that C has."""


def enumerator(function: str) -> str:
    """Returns the name of a function in C."""
    return f"DO_{function.upper()}"


def needs_library(functions: Collection[str]) -> bool:
    """Returns True if some function calls the mathematical library of C."""
    return any("f(" in EXPRESSIONS[each] for each in functions)


def apply(functions: Collection[str]) -> str:
    """Returns the C function `apply`, which knows some functions.

    Args:
      functions: keys of `EXPRESSIONS`.
    """
    names = ", ".join(map(enumerator, functions))
    numbers = {
        letter: f"in[{index}][index * steps[{index}]]"
        for index, letter in enumerate("xyz")
    }
    cases = "".join(
        f"""    case {enumerator(each)}:
        for (int32_t index = 0; index < count; index++) {{
            out[index * steps[3]] = {EXPRESSIONS[each].format(**numbers)};
        }}
        break;
"""
        for each in functions
    )
    return f"""enum function {{ {names} }};

/* Applies a function to numbers that lie `steps` apart, the last step that of `out`. */
static void apply(enum function function, int32_t count, const int32_t *steps,
                  const float *const in[3], float *out)
{{
    switch (function) {{
{cases}    }}
}}
"""
