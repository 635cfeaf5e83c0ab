"""protoc-gen-ketch: from a .proto file's services to typed servicers and stubs. Names and types, no logic.

protoc runs it with a `CodeGeneratorRequest` on standard input and reads a `CodeGeneratorResponse` from standard output
(google/protobuf/compiler/plugin.proto). `ketch generate` runs protoc.
"""

from .plugin import main, respond

__all__ = ["main", "respond"]
