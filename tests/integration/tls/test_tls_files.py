"""Certificates and keys as files: what is wrong with them is said, and what changes is taken up."""

import asyncio
import contextlib
import datetime as dt
import logging
import os
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ketch.errors import ConfigurationError, Unavailable
from ketch.grpc import credentials
from ketch.tls import ClientTls, ServerTls, Tls
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

PAST = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
EARLIER = PAST - dt.timedelta(days=1)
FUTURE = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
SECRET = "hunter2"


class Files:
    """A good pair and its root, to spoil."""

    def __init__(self, authority, stranger):
        self.authority = authority
        self.stranger = stranger
        self.root = authority.root
        self.cert, self.key = authority.issue("own")

    def write(self, path, content):
        Path(path).write_bytes(content)

    def missing_cert(self):
        Path(self.cert).unlink()

    def missing_key(self):
        Path(self.key).unlink()

    def folder(self):
        Path(self.key).unlink()
        Path(self.key).mkdir()

    def forbidden(self):
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        Path(self.key).chmod(0)

    def garbage_cert(self):
        self.write(self.cert, SECRET.encode())

    def garbage_key(self):
        self.write(self.key, b"-----BEGIN PRIVATE KEY-----\n" + SECRET.encode() + b"\n-----END PRIVATE KEY-----\n")

    def half_written_cert(self):
        self.write(self.cert, Path(self.cert).read_bytes()[:300])

    def half_written_key(self):
        self.write(self.key, Path(self.key).read_bytes()[:80])

    def empty_key(self):
        self.write(self.key, b"")

    def wrong_key(self):
        shutil.copy(self.stranger.issue("other")[1], self.key)

    def encrypted_key(self):
        key = serialization.load_pem_private_key(Path(self.key).read_bytes(), None)
        encryption = serialization.BestAvailableEncryption(SECRET.encode())
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        self.write(self.key, key.private_bytes(*form, encryption))

    def expired(self):
        self.authority.issue("own", "127.0.0.1", not_before=EARLIER, not_after=PAST)

    def not_valid_yet(self):
        self.authority.issue("own", "127.0.0.1", not_before=FUTURE)

    def missing_root(self):
        Path(self.root).unlink()

    def garbage_root(self):
        self.write(self.root, SECRET.encode())


@pytest.fixture
def files(authority, stranger):
    return Files(authority, stranger)


OF_THE_PAIR = [
    (Files.missing_cert, r"_tls_cert: .*own\.pem can't be read: No such file"),
    (Files.missing_key, r"_tls_key: .*own\.key can't be read: No such file"),
    (Files.folder, r"_tls_key: .*own\.key can't be read: Is a directory"),
    (Files.forbidden, r"_tls_key: .*own\.key can't be read: Permission denied"),
    (Files.garbage_cert, r"_tls_cert: .*own\.pem holds no PEM certificate"),
    (Files.garbage_key, r"_tls_key: .*own\.key with .*own\.pem can't be used"),
    (Files.half_written_cert, r"_tls_cert: .*own\.pem holds no PEM certificate"),
    (Files.half_written_key, r"_tls_key: .*own\.key with .*own\.pem can't be used"),
    (Files.empty_key, r"_tls_key: .*own\.key with .*own\.pem can't be used"),
    (Files.wrong_key, r"_tls_key: .*own\.key is not the key of the certificate in .*own\.pem"),
    (Files.encrypted_key, r"_tls_key: .*own\.key has a passphrase; `openssl pkey"),
    (Files.expired, r"_tls_cert: .*own\.pem: certificate has expired"),
    (Files.not_valid_yet, r"_tls_cert: .*own\.pem: certificate is not yet valid"),
]
OF_THE_ROOT = [
    (Files.missing_root, r"root\.pem can't be read: No such file"),
    (Files.garbage_root, r"root\.pem holds no PEM certificate"),
]


@pytest.mark.parametrize(("spoil", "said"), OF_THE_PAIR)
@pytest.mark.parametrize("side", ["server", "client"])
async def test_a_pair_that_cannot_be_used_is_an_error_at_start(files, spoil, said, side):
    spoil(files)
    server = ServerTls(files.cert, files.key) if side == "server" else None
    client = ClientTls(files.root, files.cert, files.key) if side == "client" else None
    with pytest.raises(ConfigurationError, match=f"^{side}{said}") as caught:
        await GrpcTransport(tls=Tls(server, client)).open()
    assert SECRET not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(("spoil", "said"), OF_THE_ROOT)
async def test_roots_that_cannot_be_used_are_an_error_at_start(files, spoil, said):
    spoil(files)
    with pytest.raises(ConfigurationError, match=f"^server_tls_client_ca: .*{said}"):
        await GrpcTransport(tls=Tls(server=ServerTls(files.cert, files.key, files.root))).open()
    with pytest.raises(ConfigurationError, match=f"^client_tls_ca: .*{said}"):
        await GrpcTransport(tls=Tls(client=ClientTls(files.root))).open()


async def test_a_transport_that_was_not_opened_finds_it_out_all_the_same(files):
    files.wrong_key()
    with pytest.raises(ConfigurationError, match="server_tls_key"):
        await GrpcTransport(tls=Tls(server=ServerTls(files.cert, files.key))).listen("127.0.0.1:0", {})
    channel = GrpcTransport(tls=Tls(client=ClientTls(files.root, files.cert, files.key))).connect("127.0.0.1:1")
    with pytest.raises(Unavailable, match="can't be called: client_tls_key: "):
        await channel.unary("/t/Serial", b"", content_type="application/protobuf", timeout=5)
    await channel.close()


async def test_the_systems_roots_can_be_trusted(files):
    async with GrpcTransport(tls=Tls(server=ServerTls(files.cert, files.key), client=ClientTls("system"))) as transport:
        listener = await transport.listen("127.0.0.1:0", {})
        channel = transport.connect(listener.address)
        with pytest.raises(Unavailable, match="certificate is not accepted"):  # no system has heard of our authority
            await channel.unary("/t/Serial", b"", content_type="application/protobuf", timeout=5)
        await channel.close()
        await listener.stop(0)


# Rotation


class Pair:
    """A listener over mutual TLS, and as many new connections to it as a test wants."""

    def __init__(self, files, listener, transport):
        self.files = files
        self.listener = listener
        self.transport = transport

    async def serials(self):
        """Return the serial numbers of the certificates that a new connection sees: the server's, the client's."""
        channel = self.transport.connect(self.listener.address)
        try:
            own = await channel.unary("/t/Serial", b"", content_type="application/protobuf", timeout=5)
            wire = channel._current
            return wire._transport.get_extra_info("ssl_object").getpeercert()["serialNumber"], own.decode()
        finally:
            await channel.close()

    def replace(self):
        """Write a new pair."""
        self.files.authority.issue("own")

    async def replace_slowly(self):
        """Write a new pair as an operator does: one file after the other, with connections made in between."""
        cert, key = self.files.authority.issue("next")
        shutil.copy(cert, self.files.cert)
        await self.serials()
        shutil.copy(key, self.files.key)


async def serial(request):
    return request.peer._certificate()["serialNumber"].encode()


@pytest.fixture
async def pair(files, monkeypatch):
    monkeypatch.setattr(credentials, "_LOOK", 0.0)  # look at every connection, so that no test waits
    tls = Tls(ServerTls(files.cert, files.key, files.root), ClientTls(files.root, files.cert, files.key))
    async with GrpcTransport(tls=tls) as transport:
        listener = await transport.listen("127.0.0.1:0", {"/t/Serial": Route(unary=serial)})
        yield Pair(files, listener, transport)
        await listener.stop(0)


async def test_new_connections_use_a_certificate_that_was_replaced_and_old_ones_go_on(pair):
    before = await pair.serials()
    kept = pair.transport.connect(pair.listener.address)
    await kept.unary("/t/Serial", b"", content_type="application/protobuf", timeout=5)
    pair.replace()
    after = await pair.serials()
    assert after[0] != before[0]
    assert after[1] != before[1]
    still = await kept.unary("/t/Serial", b"", content_type="application/protobuf", timeout=5)
    assert still.decode() == before[1]
    await kept.close()


async def test_no_call_fails_while_certificates_are_replaced_under_traffic(pair):
    seen = set()
    stop = asyncio.Event()

    async def pour():
        while not stop.is_set():
            seen.update(await pair.serials())

    async def keep_calling():
        channel = pair.transport.connect(pair.listener.address)
        while not stop.is_set():
            await channel.unary("/t/Serial", b"", content_type="application/protobuf", timeout=5)
        await channel.close()

    traffic = [asyncio.create_task(work) for work in (pour(), pour(), pour(), keep_calling())]
    for _ in range(10):
        known = set(seen)
        await pair.replace_slowly()
        while seen == known and not any(task.done() for task in traffic):  # noqa: ASYNC110 - a set has no event
            await asyncio.sleep(0)
    stop.set()
    await asyncio.gather(*traffic)
    assert len(seen) >= 10


@pytest.mark.parametrize(
    "spoil", [Files.missing_key, Files.half_written_cert, Files.wrong_key, Files.encrypted_key, Files.expired]
)
async def test_a_pair_that_is_broken_leaves_the_one_before_in_use_until_it_is_mended(pair, caplog, spoil):
    caplog.set_level(logging.ERROR)
    before = await pair.serials()
    spoil(pair.files)
    assert await pair.serials() == before
    assert await pair.serials() == before
    errors = [record.getMessage() for record in caplog.records]
    assert len(errors) == 2  # one for each side, however many connections
    assert all("the ones before stay in use" in error and "own." in error for error in errors)
    assert not any(SECRET in error for error in errors)
    pair.replace()
    assert (await pair.serials())[0] != before[0]


async def test_who_is_no_longer_vouched_for_makes_no_new_connection(pair, stranger):
    """The bundle that callers are judged by is replaced; adding to the old one would have let them in."""
    await pair.serials()
    context = ssl.create_default_context(cafile=pair.files.root)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(pair.files.cert, pair.files.key)
    shutil.copy(stranger.root, pair.files.root)
    with contextlib.suppress(ssl.SSLError):  # in TLS 1.3 a client may hear of it when it reads, or already here
        reader, writer = await asyncio.open_connection(*pair.listener.address.split(":"), ssl=context)
        with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
            await reader.read()
        writer.close()


async def test_clients_take_up_new_roots(pair, stranger):
    """The server moves to another authority, the bundle that both trust is replaced."""
    await pair.serials()
    cert, key = stranger.issue("moved")
    for source, target in ((cert, pair.files.cert), (key, pair.files.key), (stranger.root, pair.files.root)):
        shutil.copy(source, target)
    assert (await pair.serials())[0]


async def test_files_are_looked_at_once_a_second_at_most(files, monkeypatch):
    looks = []
    monkeypatch.setattr(credentials, "_fingerprint", lambda path: looks.append(path) or b"same")
    held = credentials.ServerCredentials(ServerTls(files.cert, files.key, files.root))
    clock = [100.0]
    monkeypatch.setattr(credentials.time, "monotonic", lambda: clock[0])
    held.load()
    looks.clear()
    for _ in range(1000):
        held.current()
    assert looks == []
    clock[0] += 1.0
    for _ in range(1000):
        held.current()
    assert sorted(looks) == sorted({files.cert, files.key, files.root})


async def test_a_link_that_is_swapped_is_a_change(authority, tmp_path):
    """As Kubernetes does it: the files' names are links into a folder that is replaced as one."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        cert, key = authority.issue(version)
        shutil.copy(cert, tmp_path / version / "tls.crt")
        shutil.copy(key, tmp_path / version / "tls.key")
    link = tmp_path / "current"
    link.symlink_to("one")
    held = credentials.ServerCredentials(ServerTls(str(link / "tls.crt"), str(link / "tls.key")))
    first = held.current()
    held._looked = 0.0
    assert held.current() is first
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(link)
    held._looked = 0.0
    assert held.current() is not first
