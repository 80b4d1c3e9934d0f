"""Loads a file as a network, on the module of a person where it needs one."""

import dataclasses
import os
from typing import Any

from aslp_jax import functional
from aslp_jax._tree import named_leaves
from aslp_jax.artefact import architecture, signature
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.decoding import assemble, assemble_tree, read
from aslp_jax.artefact.header import Header
from aslp_jax.artefact.source import Source, default_source
from aslp_jax.artefact.subnetwork import Subnetwork


def load(
    path: str | os.PathLike[str], *, net: Any = None, like: Any = None
) -> Subnetwork | Any:
    """Reads an artefact and initialises the frozen weights that it does not store.

    Nothing that a file names is imported or executed. A network of this library is made
    from its sizes in the file; any other network is given as `net`.

    Args:
      path: path of the file.
      net: network of the file, in any form that `functional.network` takes: a Linen or
        NNX module, or a pair of functions. Default: the network of this library that
        the file names. Its own weights do not matter.
      like: for a file of a bare pytree, a pytree of the same structure, of arrays or of
        shapes and dtypes. Default: None, for nested dicts whose keys are texts.

    Returns:
      The network; the sha256 of each array is verified. For a file of a bare pytree,
      the pytree of arrays.

    Raises:
      ArtefactError: the file is no artefact, of another format, damaged or
        inconsistent; its weights cannot be initialised again to the last bit; it names
        a network that is not of this library, and there is no `net`; or its arrays are
        not those of `net` or `like`. The message names the first array that differs.
      OSError: the file cannot be read.
      TypeError: `net` is no network.
    """
    contents = read(path)
    if net is not None:
        functional.network(net)
    try:
        _check_arguments(contents.header, net, like)
        if contents.header.network is None:
            return assemble_tree(contents, like)
        subnetwork = assemble(contents)
        return subnetwork if net is None else bind(subnetwork, net)
    except ArtefactError as error:
        raise ArtefactError(f"{os.fspath(path)} {error}") from error.__cause__


def load_unbound(path: str | os.PathLike[str]) -> Subnetwork:
    """Reads an artefact as `load` does, and any network without its module.

    Args:
      path: path of the file.

    Returns:
      The network; its `net` is None if it is not of this library.

    Raises:
      ArtefactError: as in `load`, or the file names no network.
      OSError: the file cannot be read.
    """
    contents = read(path)
    try:
        return assemble(contents)
    except ArtefactError as error:
        raise ArtefactError(f"{os.fspath(path)} {error}") from None


def _check_arguments(header: Header, net: Any, like: Any) -> None:
    if header.network is None:
        if net is not None:
            raise ArtefactError("holds a bare pytree, not a network; leave out net=")
        return
    if like is not None:
        raise ArtefactError("holds a network, not a bare pytree; leave out like=")
    if isinstance(header.network, Source) and net is None:
        raise ArtefactError(
            f"holds the network {header.network}, which is not of this library; give "
            "it as load(path, net=...)"
        )


def bind(subnetwork: Subnetwork, net: Any) -> Subnetwork:
    """Returns a network that runs on a person's own module.

    Args:
      subnetwork: result of `assemble`.
      net: network, in any form that `functional.network` takes.

    Returns:
      The network, with `net` and with variables in its trees.

    Raises:
      ArtefactError: names, shapes, dtypes or outputs differ; the message continues the
        name of the file.
    """
    about = subnetwork.description
    try:
        found = signature.trace(net, about.image_shape)
    except ArtefactError as error:
        raise ArtefactError(f"cannot be loaded: the network {error}") from error
    arrays = named_leaves(subnetwork.variables)
    signature.compare(found, arrays, about)
    variables, source = signature.restore(found, arrays), subnetwork.source
    plain = architecture.unwrap(net)
    if source is None and not architecture.is_known(plain):
        source = default_source(plain)
    return dataclasses.replace(subnetwork, net=net, variables=variables, source=source)
