"""The official interop programs of other languages: where they come from, how they are started. Kept in `.interop/`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
KEPT: Final = ROOT / ".interop"
JARS: Final = KEPT / "java" / "lib"
#: gRPC's own test certificate and its root, as all its interop programs use them; they come with grpc-java.
CERTS: Final = KEPT / "certs"
OVERRIDE: Final = "--server_host_override=foo.test.google.fr"
KEYS: Final = (f"--tls_cert_file={CERTS}/server1.pem", f"--tls_key_file={CERTS}/server1.key")

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
class Peer:
    """One language's client and server.

    Attributes:
        name: what the table calls it.
        client_lacks, server_lacks: cases that its own programs don't have, and why; gRPC's own matrix leaves
            those of compression out for it too.
        plain, tls_client, tls_server: flags of either program without TLS, and of each with it.
        plain, tls_client, tls_server: flags of either program without TLS, and of each with it.
    """

    name: str
    client: tuple[str, ...]
    server: tuple[str, ...]
    client_lacks: dict[str, str]
    server_lacks: dict[str, str]
    plain: tuple[str, ...] = ()
    tls_client: tuple[str, ...] = ()
    tls_server: tuple[str, ...] = ()

    def flags(self, *, client: bool, tls: bool) -> tuple[str, ...]:
        """Return what says whether TLS is used."""
        if not tls:
            return self.plain
        return self.tls_client if client else self.tls_server


#: Both sides ours: has all that the cases ask for.
KETCH: Final = Peer(
    "ketch",
    (sys.executable, str(ROOT / "interop" / "client.py")),
    (sys.executable, str(ROOT / "interop" / "server.py")),
    client_lacks={},
    server_lacks={},
    tls_client=(f"--tls_ca={CERTS}/ca.pem", OVERRIDE),
    tls_server=KEYS,
)


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


def certificates() -> None:
    """Take the test certificates out of grpc-java's jar."""
    CERTS.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(JARS / f"grpc-testing-{JAVA}.jar") as jar:
        for name in ("ca.pem", "server1.pem", "server1.key"):
            file = CERTS / name
            file.write_bytes(jar.read(f"certs/{name}"))
            file.chmod(0o600)


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
    """Return those that are tested, built; ketch is the last."""
    java = ("java", "-XX:TieredStopAtLevel=1", "-cp", jars(), "io.grpc.testing.integration.")
    certificates()
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
                **dict.fromkeys(("client_compressed_unary", "client_compressed_streaming"), _NO_CASE),
                **dict.fromkeys(("client_compressed_unary_noprobe", "client_compressed_streaming_noprobe"), _NO_CASE),
                **dict.fromkeys(("server_compressed_unary", "server_compressed_streaming"), _NO_CASE),
            },
            server_lacks={
                "cacheable_unary": _PROXY,
                "very_large_request": "its server takes at most 4 MiB",
                **dict.fromkeys(("client_compressed_unary", "client_compressed_streaming"), _NO_GZIP),
                **dict.fromkeys(("client_compressed_unary_noprobe", "client_compressed_streaming_noprobe"), _NO_GZIP),
                **dict.fromkeys(("server_compressed_unary", "server_compressed_streaming"), _NO_GZIP),
            },
            tls_client=("--use_tls=true", "--use_test_ca=true", f"--ca_file={CERTS}/ca.pem", OVERRIDE),
            tls_server=("--use_tls=true", *KEYS),
        ),
        Peer(
            f"grpc-java {JAVA}",
            (*java[:-1], java[-1] + "TestServiceClient"),
            (*java[:-1], java[-1] + "TestServiceServer"),
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
            plain=("--use_tls=false",),
            tls_client=("--use_tls=true", "--use_test_ca=true", OVERRIDE),
            tls_server=("--use_tls=true",),
        ),
        KETCH,
    ]
