"""From protobuf's names to Python's."""

from __future__ import annotations

import keyword
import re


def module_of(file: str, suffix: str = "_pb2") -> str:
    """Return the module that a .proto file becomes, by protoc's own rule: `a-b/c.d.proto` -> `a_b.c.d_pb2`."""
    return file.removesuffix(".proto").replace("-", "_").replace("/", ".") + suffix


def import_line(module: str, alias: str) -> str:
    """Return the line that makes the module known as `alias`, also where a package's name is a keyword."""
    package, _, base = module.rpartition(".")
    if any(map(keyword.iskeyword, package.split("."))):
        return f'{alias} = importlib.import_module("{module}")'
    renamed = "" if alias == base else f" as {alias}"
    return f"from {package} import {base}{renamed}" if package else f"import {base}{renamed}"


def snake(name: str) -> str:
    """`GetAll` -> `get_all`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def python(name: str) -> str:
    """Return the name of an rpc's Python method. A leading underscore would be private, mangled or special."""
    return f"rpc{snake(name)}" if name.startswith("_") else snake(name)


def unique(name: str, taken: set[str]) -> str:
    """Return the name, with an underscore for each time that it was taken or is Python's; take it."""
    while name in taken or keyword.iskeyword(name):
        name += "_"
    taken.add(name)
    return name
