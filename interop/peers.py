"""The official interop programs of other languages: where they come from, how they are started. Kept in `.interop/`."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
KEPT: Final = ROOT / ".interop"
JARS: Final = KEPT / "java" / "lib"

GO: Final = "v1.85.0"
JAVA: Final = "1.76.0"
_GO_PROGRAMS: Final = "google.golang.org/grpc/interop/"
_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ketch</groupId><artifactId>interop</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>io.grpc</groupId><artifactId>grpc-interop-testing</artifactId><version>{JAVA}</version></dependency>
  </dependencies>
</project>
"""


@dataclass(frozen=True)
class Tls:
    """A certificate for 127.0.0.1 and its key; it is its own root."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Peer:
    """One language's client and server.

    Attributes:
        name: what the table calls it.
        client_lacks, server_lacks: cases that its own programs don't have, and why; grpc's own matrix leaves them
            out for it too.
    """

    name: str
    client: tuple[str, ...]
    server: tuple[str, ...]
    client_lacks: dict[str, str]
    server_lacks: dict[str, str]
    tls_client: tuple[str, ...] = ()


def go_program(name: str, module: str) -> Path:
    """Return a Go program's path; it is built when it isn't there.

    Raises:
        SystemExit: there is no Go, or it can't be built.
    """
    program = KEPT / "bin" / name
    if not program.exists():
        need("go")
        environment = {**os.environ, "GOBIN": str(program.parent)}
        subprocess.run(("go", "install", module), check=True, env=environment)  # noqa: S607 - the one on the PATH
    return program


def jars() -> str:
    """Return the class path of grpc-java's programs; they are fetched when they aren't there.

    Raises:
        SystemExit: there is no Maven or Java.
    """
    need("java")
    if not JARS.exists():
        need("mvn")
        JARS.parent.mkdir(parents=True, exist_ok=True)
        (JARS.parent / "pom.xml").write_text(_POM)
        command = ("mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib")
        subprocess.run(command, check=True, cwd=JARS.parent)
    return f"{JARS}/*"


def need(program: str) -> None:
    """Check that a program is on the PATH.

    Raises:
        SystemExit: it isn't.
    """
    if shutil.which(program) is None:
        raise SystemExit(f"make interop needs {program} on the PATH; make test doesn't")


_PROXY: Final = "needs a caching proxy between the two"
_PROBE: Final = "its server doesn't tell whether a request came compressed; the _noprobe case is run instead"
_NO_GZIP: Final = "its program is built without gzip"
_NO_CASE: Final = "has no such case"


def peers() -> list[Peer]:
    """Return those that are tested, built."""
    java = ("java", "-XX:TieredStopAtLevel=1", "-cp", jars(), "io.grpc.testing.integration.")
    return [
        Peer(
            f"grpc-go {GO}",
            (str(go_program("client", f"{_GO_PROGRAMS}client@{GO}")),),
            (str(go_program("server", f"{_GO_PROGRAMS}server@{GO}")),),
            client_lacks={
                "cacheable_unary": _PROXY,
                "concurrent_large_unary": _NO_CASE,
                "long_lived_channel": _NO_CASE,
                "very_large_request": _NO_CASE,
                **dict.fromkeys(("client_compressed_unary", "client_compressed_streaming"), _NO_GZIP),
                **dict.fromkeys(("client_compressed_unary_noprobe", "client_compressed_streaming_noprobe"), _NO_GZIP),
                **dict.fromkeys(("server_compressed_unary", "server_compressed_streaming"), _NO_GZIP),
            },
            server_lacks={
                "cacheable_unary": _PROXY,
                "very_large_request": "its server takes at most 4 MiB",
                **dict.fromkeys(("client_compressed_unary", "client_compressed_streaming"), _NO_GZIP),
                **dict.fromkeys(("client_compressed_unary_noprobe", "client_compressed_streaming_noprobe"), _NO_GZIP),
                **dict.fromkeys(("server_compressed_unary", "server_compressed_streaming"), _NO_GZIP),
            },
            tls_client=("--use_tls=true", "--server_host_override=localhost"),
        ),
        Peer(
            f"grpc-java {JAVA}",
            (*java[:-1], java[-1] + "TestServiceClient", "--use_tls=false"),
            (*java[:-1], java[-1] + "TestServiceServer", "--use_tls=false"),
            client_lacks={
                "cacheable_unary": _PROXY,
                "concurrent_large_unary": _NO_CASE,
                "long_lived_channel": _NO_CASE,
            },
            server_lacks={
                "cacheable_unary": _PROXY,
                "client_compressed_unary": _PROBE,
                "client_compressed_streaming": _PROBE,
                "server_compressed_streaming": "its server compresses replies to unary calls only",
            },
        ),
    ]
