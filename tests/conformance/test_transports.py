"""Every transport that ketch ships passes the suite it ships."""

from uuid import uuid4

import pytest

from ketch.testing.transports import TransportSuite
from ketch.tls import ClientTls, ServerTls, Tls
from ketch.transports.grpc import GrpcTransport
from ketch.transports.memory import MemoryTransport
from ketch.url import Url


class TestGrpcOverTcp(TransportSuite):
    @pytest.fixture
    def make(self):
        return lambda: GrpcTransport.from_url(Url.parse("grpc"))


class TestGrpcOverIpv6(TransportSuite):
    @pytest.fixture
    def make(self):
        return lambda: GrpcTransport.from_url(Url.parse("grpc"))

    @pytest.fixture
    def place(self):
        return "[::1]:0"


class TestGrpcOverUnixSockets(TransportSuite):
    @pytest.fixture
    def make(self):
        return lambda: GrpcTransport.from_url(Url.parse("grpc"))

    @pytest.fixture
    def place(self, tmp_path):
        return f"unix:{tmp_path}/socket"


class TestMemory(TransportSuite):
    @pytest.fixture
    def make(self):
        url = Url.parse(f"memory://{uuid4().hex}")
        return lambda: MemoryTransport.from_url(url)


class TestGrpcOverTls(TransportSuite):
    @pytest.fixture
    def make(self, authority):
        cert, key = authority.issue("server")
        options = {"server_tls_cert": cert, "server_tls_key": key, "client_tls_ca": authority.root}
        return lambda: GrpcTransport.from_url(Url("grpc", options=options))


class TestGrpcOverMutualTlsOnUnixSockets(TransportSuite):
    @pytest.fixture
    def make(self, authority):
        cert, key = authority.issue("both")
        server = ServerTls(cert, key, authority.root)
        client = ClientTls(authority.root, cert, key)
        return lambda: GrpcTransport(tls=Tls(server, client))

    @pytest.fixture
    def place(self, tmp_path):
        return f"unix:{tmp_path}/socket"
