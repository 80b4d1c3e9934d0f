"""Functions of numbers in C: an expression each, and the function that applies them."""

from collections.abc import Collection, Mapping

from aslp_jax.export.operations import BINARY, UNARY

__all__ = [
    "EXPRESSIONS",
    "INTEGER_EXPRESSIONS",
    "SUPPORTED",
    "apply",
    "enumerator",
    "needs_library",
]

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

INTEGER_EXPRESSIONS: Mapping[str, str] = {
    "copy": "{x}",
    "lookup": "get(map->kinds[3], in[1], (uint8_t){x})",
    "product": (
        "requantize(step, (int64_t)({x} * {y}) * step->multiplier + step->offset)"
    ),
    "rescale": (
        "requantize(step, {x} * (int64_t)((const int32_t *)in[1])[{second}] + "
        "((const int64_t *)in[2])[{third}])"
    ),
    "sum": (
        "requantize(step, (int64_t){x} * step->multipliers[0] + "
        "(int64_t){y} * step->multipliers[1] + step->offset)"
    ),
}
"""Expressions of integers, by function.

`lookup` takes a table, whose index is an integer modulo 256; `rescale` takes factors
and offsets.
"""

SUPPORTED = tuple(sorted(EXPRESSIONS.keys() & (UNARY.keys() | BINARY.keys())))
"""Functions of a graph that C has."""


def enumerator(function: str) -> str:
    """Returns the name of a function in C."""
    return f"DO_{function.upper()}"


def needs_library(functions: Collection[str]) -> bool:
    """Returns True if some function calls the mathematical library of C."""
    return any("f(" in EXPRESSIONS.get(each, "") for each in functions)


def apply(functions: Collection[str], *, integers: bool = False) -> str:
    """Returns the C function `apply`, which knows some functions.

    Args:
      functions: keys of `EXPRESSIONS`, or of `INTEGER_EXPRESSIONS`.
      integers: True for functions of integers.
    """
    operands = [f"at[{index}] + index * steps[{index}]" for index in range(4)]
    if integers:
        expressions, assignment = INTEGER_EXPRESSIONS, "put(map->kinds[3], out, {}, {})"
        numbers = [f"get(map->kinds[{i}], in[{i}], {operands[i]})" for i in range(3)]
    else:
        expressions, assignment = EXPRESSIONS, "out[{}] = {}"
        numbers = [f"in[{i}][{operands[i]}]" for i in range(3)]
    names = dict(zip(("x", "y", "z"), numbers, strict=True))
    names |= {"second": operands[1], "third": operands[2]}
    step = "const struct requantization *step = &map->requantization;\n    (void)step;"
    cases = "".join(
        f"""    case {enumerator(each)}:
        for (int32_t index = 0; index < count; index++) {{
            {assignment.format(operands[3], expressions[each].format(**names))};
        }}
        break;
"""
        for each in functions
    )
    return f"""/* Numbers lie `steps` apart, from `at` on. */
static void apply(const struct map *map, const int32_t *at, const NUMBERS *const in[3],
                  NUMBERS *out)
{{
    const int32_t inner = map->loops - 1, count = map->sizes[inner];
    const int32_t *steps = map->steps[inner];
    {step if integers else ""}
    switch (map->function) {{
{cases}    }}
}}
"""
