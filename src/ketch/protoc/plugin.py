"""protoc's side: its request in, its response out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from google.protobuf.compiler import plugin_pb2 as plugin
from google.protobuf.descriptor_pb2 import Edition
from google.protobuf.message import DecodeError

from .module import Module
from .names import module_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto


def main() -> int:
    """Answer one request of protoc's; return the exit code."""
    if sys.stdin.isatty():
        return _refuse("protoc runs this, not people; try: ketch generate --help")
    try:
        request = plugin.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    except DecodeError as error:
        return _refuse(f"standard input holds no CodeGeneratorRequest ({error}); protoc writes one")
    sys.stdout.buffer.write(respond(request).SerializeToString())
    return 0


def _refuse(reason: str) -> int:
    sys.stderr.write(f"protoc-gen-ketch: {reason}\n")
    return 1


def respond(request: plugin.CodeGeneratorRequest) -> plugin.CodeGeneratorResponse:
    """Return one `*_ketch.py` for each requested file that has services."""
    response = plugin.CodeGeneratorResponse(
        supported_features=plugin.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
        | plugin.CodeGeneratorResponse.FEATURE_SUPPORTS_EDITIONS,
        minimum_edition=Edition.EDITION_PROTO2,
        maximum_edition=Edition.EDITION_2024,
    )
    if request.parameter:
        response.error = f"ketch takes no options, not {request.parameter!r}"
        return response
    wanted = set(request.file_to_generate)
    modules = {name: file.name for file in request.proto_file for name in _messages(file)}
    for file in request.proto_file:
        if file.name in wanted and file.service:
            name = module_of(file.name, "_ketch").replace(".", "/") + ".py"
            response.file.add(name=name, content=Module(file, modules).source())
    return response


def _messages(file: FileDescriptorProto) -> Iterator[str]:
    def walk(prefix: str, message: DescriptorProto) -> Iterator[str]:
        name = f"{prefix}.{message.name}"
        yield name
        for nested in message.nested_type:
            yield from walk(name, nested)

    for message in file.message_type:
        yield from walk(f".{file.package}" if file.package else "", message)
