"""grpc.reflection.v1 and v1alpha: what a server serves, so that tools can call it without its .proto files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..rpc import Cardinality, Method, Servicer
from .messages import message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from google.protobuf.descriptor import FileDescriptor

    from .files import Files

#: Versions of the contract, the same but for their package.
PACKAGES: Final = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_NOT_FOUND: Final = 5
_INVALID: Final = 3
#: Characters of a peer's question that are told back in an error.
_LONGEST: Final = 200


def reflection_servicer(package: str, contracts: Sequence[str], files: Files) -> Servicer:
    """Return what serves one version of the contract.

    Args:
        package: one of `PACKAGES`.
        contracts: full names of all that is served.
        files: where their descriptors are.
    """
    contract_ = f"{package}.ServerReflection"
    request = message(f"{package}.ServerReflectionRequest")
    response = message(f"{package}.ServerReflectionResponse")
    method = Method(contract_, "ServerReflectionInfo", request, response, Cardinality.BIDIRECTIONAL)

    class Reflecting(Servicer):
        contract = contract_
        methods = {"reflect": method}  # noqa: RUF012 - a mapping that nobody changes, as generated code has it

        async def reflect(self, questions: AsyncIterator[Any]) -> AsyncIterator[Any]:
            sent: set[str] = set()
            async for question in questions:
                answer = response(valid_host=question.host, original_request=question)
                _answer(question, answer, contracts, files, sent)
                yield answer

    return Reflecting()


def _answer(question: Any, answer: Any, contracts: Sequence[str], files: Files, sent: set[str]) -> None:
    kind = question.WhichOneof("message_request")
    try:
        if kind == "list_services":
            answer.list_services_response.SetInParent()
            for contract in contracts:
                answer.list_services_response.service.add(name=contract)
        elif kind == "all_extension_numbers_of_type":
            type_ = question.all_extension_numbers_of_type
            numbers = files.extensions(type_)
            answer.all_extension_numbers_response.base_type_name = type_
            answer.all_extension_numbers_response.extension_number.extend(numbers)
        elif kind is not None:
            found = list(_needed(_find(question, kind, files), sent))
            answer.file_descriptor_response.file_descriptor_proto.extend(file.serialized_pb for file in found)
        else:
            answer.error_response.error_code = _INVALID
            answer.error_response.error_message = "the question is empty, or of a kind that is not known here"
    except KeyError as missing:
        answer.error_response.error_code = _NOT_FOUND
        answer.error_response.error_message = f"not found: {str(missing.args[0])[:_LONGEST]}"


def _find(question: Any, kind: str, files: Files) -> FileDescriptor:
    if kind == "file_by_filename":
        return files.by_name(question.file_by_filename)
    if kind == "file_containing_symbol":
        return files.by_symbol(question.file_containing_symbol)
    extension = question.file_containing_extension
    return files.by_extension(extension.containing_type, extension.extension_number)


def _needed(file: FileDescriptor, sent: set[str]) -> Iterator[FileDescriptor]:
    """Yield the file that was asked for, and what it imports as far as that was not sent on this stream before."""
    sent.add(file.name)
    yield file
    for imported in file.dependencies:
        if imported.name not in sent:
            yield from _needed(imported, sent)
