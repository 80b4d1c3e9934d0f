"""Networks of one's own: a class or a function of a Python file or module, by name."""

import ast
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from aslp_jax import functional
from aslp_jax._errors import BadInput
from aslp_jax._frameworks import is_nnx

if TYPE_CHECKING:
    from flax import nnx

__all__ = ["load", "name", "parse_arguments", "source_sha256"]

_OWN_NETWORK = "docs/own_network.md"
"""Page of the site on networks of one's own."""


def name(model: str) -> str:
    """Returns the name of the class or function in `FILE.py:NAME`.

    Args:
      model: `FILE.py:NAME` or `package.module:NAME`.

    Raises:
      BadInput: the text has another form.
    """
    return _parts(model)[1]


def source_sha256(model: str) -> str:
    """Returns the sha256 of the source file of a network.

    Args:
      model: `FILE.py:NAME` or `package.module:NAME`.

    Raises:
      BadInput: there is no such file or module.
    """
    path = _source(model)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(
            f"--model {model}: {path} cannot be read: {error.strerror}",
            page=_OWN_NETWORK,
        ) from error


def load(
    model: str, arguments: str | None = None, *, sha256: str | None = None
) -> nn.Module | functional.Network:
    """Imports a network.

    Args:
      model: `FILE.py:NAME` or `package.module:NAME`. NAME is a Linen or NNX class, a
        function that makes a network, or a network.
      arguments: keyword arguments of the class or function, such as
        `"classes=10,width=0.25"`; None (default) for none.
      sha256: sha256 that the source file must have; None (default) for any.

    Returns:
      The network, in a form that `functional.network` takes. An NNX class or a function
      with an argument `rngs` is `functional.NNX`.

    Raises:
      BadInput: the module or the name does not exist, the source file has another
        sha256, the import fails, or the arguments do not suit.
    """
    found = source_sha256(model)
    if sha256 not in (None, found):
        raise BadInput(
            f"--model {model} has changed: its sha256 was {sha256}, and is {found}",
            page=_OWN_NETWORK,
        )
    return _load(model, arguments, found)


# The same object for the same values, so that programs are compiled once.
@functools.lru_cache(maxsize=4)
def _load(model: str, arguments: str | None, sha256: str) -> Any:
    _, found_name = _parts(model)
    module = _import(model)
    try:
        found = getattr(module, found_name)
    except AttributeError:
        raise BadInput(
            f"--model {model}: no {found_name!r} there; it has {_networks_of(module)}",
            page=_OWN_NETWORK,
        ) from None
    values = parse_arguments(arguments or "")
    net = found
    if callable(found) and not (isinstance(found, nn.Module) or is_nnx(found)):
        net = _call(model, found, values)
    elif values:
        raise BadInput(
            f"--model {model} is no class or function; drop --model-args",
            page=_OWN_NETWORK,
        )
    try:
        if isinstance(net, ModuleType):  # flax.linen has an `init` and an `apply`
            raise TypeError
        functional.network(net)
    except TypeError:
        raise BadInput(
            f"--model {model} gives {type(net).__name__}; expected a Flax Linen or NNX "
            "module",
            page="docs/own_network.md#equinox-haiku-plain-jax",
        ) from None
    return net


def parse_arguments(text: str) -> dict[str, Any]:
    """Returns the keyword arguments of a text such as `classes=10,width=0.25`.

    Args:
      text: names and values; a value is a Python literal, or a word, which is a string.

    Raises:
      BadInput: the text has another form.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if (
            not isinstance(call, ast.Call)
            or call.args
            or not isinstance(call.func, ast.Name)
        ):
            raise ValueError
        return {_keyword(each): _value(each.value) for each in call.keywords}
    except (SyntaxError, ValueError):
        raise BadInput(
            f"--model-args must be as in classes=10,width=0.25, got {text}",
            page=_OWN_NETWORK,
        ) from None


@dataclasses.dataclass(frozen=True)
class _Make:
    """Function from `nnx.Rngs` to a module, equal for equal arguments."""

    call: "Callable[..., nnx.Module]"
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, rngs: "nnx.Rngs") -> "nnx.Module":
        return self.call(**dict(self.arguments), rngs=rngs)


def _parts(model: str) -> tuple[str, str]:
    place, colon, found = model.rpartition(":")
    if not colon or not place or not found.isidentifier():
        raise BadInput(
            f"--model must be FILE.py:NAME or package.module:NAME, got {model}",
            page=_OWN_NETWORK,
        )
    return place, found


def _source(model: str) -> Path:
    """Returns the path of the source file."""
    place, _ = _parts(model)
    if place.endswith(".py"):
        return Path(place).expanduser()
    try:
        spec = importlib.util.find_spec(place)
    except Exception as error:
        raise BadInput(
            f"--model {model}: {_describe(error)}", page=_OWN_NETWORK
        ) from error
    if spec is None or spec.origin is None or not spec.has_location:
        raise BadInput(
            f"--model {model}: no module {place!r}; install it, set PYTHONPATH, or "
            "give its file as FILE.py:NAME",
            page=_OWN_NETWORK,
        )
    return Path(spec.origin)


def _import(model: str) -> ModuleType:
    place, _ = _parts(model)
    path = _source(model)
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        # A name of its own: the file may be called like a package.
        label = f"_model_{path.stem}"
        spec = importlib.util.spec_from_file_location(label, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python source")
        module = importlib.util.module_from_spec(spec)
        sys.modules[label] = module
        # Not the loader: Python's bytecode cache takes a file that was changed within a
        # second, to the same size, for the old one.
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
        return module
    except Exception as error:
        raise BadInput(
            f"--model {model} cannot be imported: {_describe(error)}",
            page=_OWN_NETWORK,
        ) from error


def _networks_of(module: ModuleType) -> str:
    """Returns the names that a module defines and that may be networks."""
    found = [
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(found) or "no class and no function"


def _call(model: str, found: Callable[..., Any], values: dict[str, Any]) -> Any:
    """Returns the network that a class or a function makes."""
    # NNX hides the arguments of a class behind a metaclass.
    target = found.__init__ if inspect.isclass(found) else found  # type: ignore[misc]
    parameters = dict(inspect.signature(target).parameters)
    for hidden in ("self", "parent", "name"):
        parameters.pop(hidden, None)
    takes_rngs = parameters.pop("rngs", None) is not None
    _check_arguments(model, parameters, values)
    try:
        if takes_rngs:
            make = _Make(found, tuple(values.items()))
            hash(make)
            return functional.NNX(make)
        return found(**values)
    except Exception as error:
        raise BadInput(
            f"--model {model}: {_describe(error)}", page=_OWN_NETWORK
        ) from error


def _check_arguments(
    model: str, parameters: dict[str, inspect.Parameter], values: dict[str, Any]
) -> None:
    kinds = {each.kind for each in parameters.values()}
    named = {
        each: parameter
        for each, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    missing = [
        each
        for each, parameter in named.items()
        if parameter.default is parameter.empty and each not in values
    ]
    if missing:
        example = ",".join(f"{each}=..." for each in missing)
        raise BadInput(
            f"--model {model} needs --model-args {example}", page=_OWN_NETWORK
        )
    odd = [each for each in values if each not in named]
    if odd and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise BadInput(
            f"--model {model} takes no argument {odd[0]!r}; it takes "
            f"{', '.join(named) or 'none'}",
            page=_OWN_NETWORK,
        )


def _keyword(argument: ast.keyword) -> str:
    if argument.arg is None:
        raise ValueError
    return argument.arg


def _value(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _describe(error: Exception) -> str:
    """Returns an error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
