"""Files: the .proto files behind the contracts that a server serves, and all that they import."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool

from .messages import pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.descriptor_pool import DescriptorPool

    from ..rpc import Servicer


class Files:
    """Finds descriptors by what they hold; of files that no served contract needs nothing is told."""

    def __init__(self, servicers: Iterable[Servicer]) -> None:
        self._files: dict[str, FileDescriptor] = {}
        self.add(servicers)

    def add(self, servicers: Iterable[Servicer]) -> None:
        """Tell of further contracts."""
        for servicer in servicers:
            for file in _files_of(servicer):
                self._take(file)

    def by_name(self, name: str) -> FileDescriptor:
        """Return a file by its name.

        Raises:
            KeyError: it isn't there.
        """
        return self._files[name]

    def by_symbol(self, symbol: str) -> FileDescriptor:
        """Return the file that declares a service, method, message, field, enum, … by its full name.

        Raises:
            KeyError: it isn't there.
        """
        for pool_ in self._pools():
            try:
                found = _find(pool_, symbol)
            except KeyError:
                continue
            if found.name in self._files:
                return found
        raise KeyError(symbol)

    def by_extension(self, type_: str, number: int) -> FileDescriptor:
        """Return the file that declares an extension of a message.

        Raises:
            KeyError: it isn't there.
        """
        for pool_ in self._pools():
            try:
                extension: Any = pool_.FindExtensionByNumber(pool_.FindMessageTypeByName(type_), number)
            except KeyError:
                continue
            return self._files[extension.file.name]
        raise KeyError(type_)

    def extensions(self, type_: str) -> list[int]:
        """Return the numbers of all extensions of a message.

        Raises:
            KeyError: there is no such message.
        """
        self.by_symbol(type_)
        numbers: set[int] = set()
        for pool_ in self._pools():
            try:
                found: list[Any] = pool_.FindAllExtensions(pool_.FindMessageTypeByName(type_))
            except KeyError:
                continue
            numbers.update(extension.number for extension in found if extension.file.name in self._files)
        return sorted(numbers)

    def _pools(self) -> list[DescriptorPool]:
        return list({id(file.pool): file.pool for file in self._files.values()}.values())

    def _take(self, file: FileDescriptor) -> None:
        if file.name not in self._files:
            self._files[file.name] = file
            for needed in file.dependencies:
                self._take(needed)


def _find(pool_: DescriptorPool, symbol: str) -> FileDescriptor:
    try:
        return pool_.FindFileContainingSymbol(symbol)
    except KeyError:
        # A pool doesn't look methods up.
        contract, _, method = symbol.rpartition(".")
        service: Any = pool_.FindServiceByName(contract)
        if method not in service.methods_by_name:
            raise
        return service.file  # type: ignore[no-any-return]


def _files_of(servicer: Servicer) -> Iterator[FileDescriptor]:
    """Yield the file that declares a servicer's contract, or else those of its messages; none for plain classes."""
    declared = _declaring(servicer)
    if declared is not None:
        yield declared
        return
    for method in servicer.methods.values():
        for type_ in (method.request, method.reply):
            descriptor: Any = getattr(type_, "DESCRIPTOR", None)
            if descriptor is not None:
                yield descriptor.file


def _declaring(servicer: Servicer) -> FileDescriptor | None:
    _import_messages(servicer)
    pools = [descriptor_pool.Default(), pool()]
    for method in servicer.methods.values():
        descriptor: Any = getattr(method.request, "DESCRIPTOR", None)
        if descriptor is not None:
            pools.insert(0, descriptor.file.pool)
    for pool_ in pools:
        try:
            return pool_.FindServiceByName(servicer.contract).file
        except KeyError:
            continue
    return None


def _import_messages(servicer: Servicer) -> None:
    """Import `x_pb2` beside the generated `x_ketch`: where a file declares nothing but services, nobody else does."""
    for class_ in type(servicer).__mro__:
        name = class_.__module__
        if name.endswith("_ketch"):
            beside = f"{name.removesuffix('_ketch')}_pb2"
            if beside not in sys.modules:
                try:
                    import_module(beside)
                except ModuleNotFoundError:
                    continue  # then the messages' own files are all that there is to tell
