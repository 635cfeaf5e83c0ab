"""The registry `consul` among strangers, as operators see it, with tokens, and with what goes wrong.

`make interop` runs it against the real Consul too, which KETCH_CONSUL names.
"""

import asyncio
import json
import os
import ssl
import zlib
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio
import trustme
from aiohttp import web

from ketch.errors import ConfigurationError, RegistryError
from ketch.registries.consul import ConsulRegistry, agent
from ketch.registry import Instance
from ketch.testing.servers.consul import consul_server
from ketch.url import Url

pytestmark = [pytest.mark.xdist_group("consul"), pytest.mark.asyncio(loop_scope="function")]

PATIENCE = 15
OPTIONS = "timeout=2&wait=2&ttl=1.5"
USER = Instance("go.micro.srv.user", "user-1", "127.0.0.1:5001", "1.2", ("shippy.user.v1.UserService",), {"zone": "a"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def consul():
    async with consul_server(program=os.environ.get("KETCH_CONSUL", "")) as server:
        yield server


@pytest.fixture
def address(consul):
    return consul.url.removeprefix("consul://")


@pytest_asyncio.fixture
async def plain(address):
    """Give a plain client of Consul: a function of method, path and body, that returns the answer."""
    async with aiohttp.ClientSession() as session:

        async def ask(method, path, value=None):
            async with session.request(method, f"http://{address}{path}", json=value) as response:
                assert response.status == 200, await response.text()
                text = await response.text()
                return json.loads(text) if text else None

        yield ask


def registry_at(address, options="", user=""):
    return ConsulRegistry.from_url(Url.parse(f"consul://{user}{address}?{OPTIONS}&{options}"))


async def until(snapshots, *expected):
    """Read snapshots until one holds exactly these instances, by their ids."""
    latest = None
    try:
        async with asyncio.timeout(PATIENCE):
            while latest is None or sorted(one.id for one in latest) != sorted(expected):
                latest = await anext(snapshots)
    except TimeoutError:
        pytest.fail(f"expected {expected}, the latest is {latest}")
    return latest


async def see(registry, name, *expected):
    async with aclosing(registry.watch(name)) as snapshots:
        return await until(snapshots, *expected)


@asynccontextmanager
async def stranger(plain, service_id, **more):
    """Register a service as somebody else would."""
    await plain("PUT", "/v1/agent/service/register", {"ID": service_id, **more})
    try:
        yield
    finally:
        await plain("PUT", f"/v1/agent/service/deregister/{service_id}")


# --- what others see


async def test_an_operator_finds_name_address_contracts_and_record(address, plain):
    async with registry_at(address) as registry:
        await registry.register(USER)
        await see(registry, USER.service, USER.id)
        assert USER.contracts[0] in (await plain("GET", "/v1/catalog/services"))[USER.service]
        (entry,) = await plain("GET", f"/v1/health/service/{USER.service}?passing")
    service = entry["Service"]
    assert (service["ID"], service["Address"], service["Port"]) == ("user-1", "127.0.0.1", 5001)
    assert json.loads(service["Meta"]["ketch-0"])["metadata"] == {"zone": "a"}


async def test_a_strangers_service_is_found_by_its_name_and_its_tags_but_not_listed(address, plain):
    more = {
        "Name": "legacy",
        "Port": 80,
        "Address": "::1",
        "Tags": ["shop.v1.Legacy"],
        "Meta": {"version": "7", "a": "b"},
    }
    async with registry_at(address) as registry, stranger(plain, "legacy-1", **more):
        for name in ("legacy", "shop.v1.Legacy"):
            (one,) = await see(registry, name, "legacy-1")
            assert (one.service, one.address, one.version, one.metadata["a"]) == ("legacy", "[::1]:80", "7", "b")
        await see(registry, None)


async def test_garbage_is_passed_over_and_said_once(address, plain, caplog):
    nameless = {"Name": "go.micro.srv.user", "Port": 0}
    garbled = {"Name": "go.micro.srv.user", "Port": 1, "Tags": ["ketch"], "Meta": {"ketch-0": '{"service":'}}
    odd = {"Name": "../../x y", "Port": 1, "Tags": ["ketch"]}
    async with (
        registry_at(address) as registry,
        stranger(plain, "nameless", **nameless),
        stranger(plain, "garbled", **garbled),
        stranger(plain, "odd", **odd),
    ):
        await registry.register(USER)
        for name in (None, USER.service, None, USER.service):
            await see(registry, name, "user-1")
        assert not registry.trouble
    passed_over = [record.getMessage() for record in caplog.records]
    assert len(passed_over) == 3, passed_over


async def test_names_that_consul_takes_for_one_are_told_apart(address):
    small, large = Instance("shop", "s", "h:1"), Instance("Shop", "S", "h:2")
    async with registry_at(address) as registry:
        await registry.register(small)
        await registry.register(large)
        assert await see(registry, "shop", "s") == (small,)
        assert await see(registry, "Shop", "S") == (large,)
        assert len(await see(registry, None, "s", "S")) == 2


async def test_prefixes_do_not_see_each_other(address):
    async with registry_at(address, "prefix=blue-") as blue, registry_at(address, "prefix=green-") as green:
        await blue.register(USER)
        await green.register(replace(USER, address="127.0.0.1:6001"))
        for registry, port in ((blue, 5001), (green, 6001)):
            for name in (None, USER.service, USER.contracts[0]):
                (one,) = await see(registry, name, "user-1")
                assert one.address == f"127.0.0.1:{port}"


async def test_an_instance_that_listens_on_a_socket_is_found(address):
    local = replace(USER, address="unix:/run/user.sock")
    async with registry_at(address) as registry:
        await registry.register(local)
        assert await see(registry, USER.service, "user-1") == (local,)


async def test_a_record_that_consuls_metadata_cannot_hold_is_refused(address):
    async with registry_at(address) as registry:
        with pytest.raises(RegistryError, match="30720 bytes"):
            await registry.register(replace(USER, metadata={"large": "ü" * 20_000}))


# --- go-micro


def said(kind, text):
    return kind + zlib.compress(text.encode()).hex()


async def test_a_service_of_go_micros_is_found_as_it_says_of_itself(address, plain):
    tags = [said("t-", '{"protocol":"grpc"}'), said("e-", '{"name":"Greeter.Hello"}'), said("v-", "3")]
    more = {"Name": "greeter", "Address": "127.0.0.1", "Port": 7001, "Tags": tags}
    expected = (Instance("greeter", "greeter-1", "127.0.0.1:7001", "3", (), {"protocol": "grpc"}),)
    async with (
        registry_at(address, "format=go-micro") as registry,
        registry_at(address) as other,
        stranger(plain, "greeter-1", **more),
    ):
        assert await see(registry, "greeter", "greeter-1") == expected
        assert await see(registry, None, "greeter-1") == expected
        assert await see(other, "greeter", "greeter-1") == expected


async def test_we_register_as_go_micro_does(address, plain):
    async with registry_at(address, "format=go-micro") as registry:
        await registry.register(USER)
        (one,) = await see(registry, USER.contracts[0], "user-1")
        assert (one.version, one.contracts, one.metadata["zone"]) == ("1.2", USER.contracts, "a")
        (entry,) = await plain("GET", f"/v1/health/service/{USER.service}?passing")
    tags = entry["Service"]["Tags"]
    assert {said("t-", '{"zone": "a"}'), said("t-", '{"protocol": "grpc"}'), said("v-", "1.2")} <= set(tags)
    assert (entry["Service"]["Address"], entry["Service"]["Port"]) == ("127.0.0.1", 5001)


@pytest.mark.parametrize(
    "tags",
    [["v-zz"], ["v-00"], ["v-" + zlib.compress(bytes(1 << 20)).hex()], [said("v-", "1"), said("t-", "[]")]],
    ids=["no hex", "no zlib", "too large", "no pair"],
)
async def test_tags_that_only_look_like_go_micros_are_passed_over(address, plain, tags):
    fake = stranger(plain, "fake", Name="fake", Address="h", Port=1, Tags=tags)
    async with registry_at(address) as registry, fake:
        await registry.register(Instance("fake", "real", "h:2"))
        await see(registry, "fake", "real")


# --- heartbeats


async def test_an_instance_that_somebody_took_away_comes_back(address, plain):
    async with registry_at(address) as registry, aclosing(registry.watch(USER.service)) as snapshots:
        await registry.register(USER)
        await until(snapshots, "user-1")
        await plain("PUT", "/v1/agent/service/deregister/user-1")
        await until(snapshots)
        await until(snapshots, "user-1")


# --- many names


async def test_more_names_than_connections_are_all_kept_current(address):
    services = [Instance(f"service-{number}", f"id-{number}", "h:1") for number in range(5)]
    async with registry_at(address, "connections=1") as registry, registry_at(address) as writer:
        watches = [registry.watch(one.service) for one in services]
        for snapshots in watches:
            await until(snapshots)
        for one in services:
            await writer.register(one)
        for one, snapshots in zip(services, watches, strict=True):
            await until(snapshots, one.id)
        for one in services:
            await writer.register(replace(one, address="h:2"))
        for snapshots in watches:
            assert [one.address for one in await asyncio.wait_for(anext(snapshots), PATIENCE)] == ["h:2"]
        for one in services:
            await writer.deregister(one)
        for snapshots in watches:
            await until(snapshots)
            await snapshots.aclose()


async def test_a_service_is_asked_for_once_by_all_its_names(address):
    async with registry_at(address) as registry:
        await registry.register(USER)
        watches = [registry.watch(name) for name in (None, USER.service, USER.contracts[0]) for _ in range(20)]
        for snapshots in watches:
            await until(snapshots, "user-1")
        assert len([task for task in asyncio.all_tasks() if "consul poll" in task.get_name()]) == 2
        for snapshots in watches:
            await snapshots.aclose()
        assert not [task for task in asyncio.all_tasks() if "consul poll" in task.get_name()]


# --- tokens, TLS, sockets


async def test_a_token_is_needed_and_never_shown(tmp_path, caplog):
    file = tmp_path / "token"
    file.write_text("s3cr3t\n")
    async with consul_server(token="s3cr3t") as server:
        address = server.url.removeprefix("consul://")
        for user, options in ((":s3cr3t@", ""), ("", f"token_file={file}")):
            async with registry_at(address, options, user) as registry:
                await registry.register(USER)
                await see(registry, USER.service, "user-1")
                assert "s3cr3t" not in f"{registry.location} {registry!r} {registry._config!r}"
        async with registry_at(address, "", ":wr0ng@") as registry:
            for refused in (registry.register(USER), anext(registry.watch(None))):
                with pytest.raises(RegistryError, match="check the token") as error:
                    await refused
                assert "wr0ng" not in str(error.value)
    assert "s3cr3t" not in caplog.text
    assert "wr0ng" not in caplog.text


async def test_a_token_file_that_is_missing_is_named(address, tmp_path):
    with pytest.raises(RegistryError, match="absent"):
        await registry_at(address, f"token_file={tmp_path}/absent").open()


@asynccontextmanager
async def front(address, start):
    """Run a server in front of the agent; `start` gets what serves a connection."""

    async def serve(reader, writer):
        there, back = await asyncio.open_connection(*address.split(":"))

        async def copy(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await start(serve)
    try:
        yield server
    finally:
        server.close()


async def test_the_agent_may_be_behind_a_unix_socket(address, tmp_path):
    path = str(tmp_path / "consul.sock")
    async with front(address, lambda serve: asyncio.start_unix_server(serve, path)):
        registry = ConsulRegistry.from_url(Url.parse(f"consul://{path}?{OPTIONS}"))
        async with registry:
            await registry.register(USER)
            await see(registry, USER.service, "user-1")
            assert registry.location == f"unix:{path}"


async def test_the_agent_may_be_behind_tls(address, tmp_path):
    authority = trustme.CA()
    root = tmp_path / "root.pem"
    authority.cert_pem.write_to_path(root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with front(address, lambda serve: asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)) as server:
        there = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with registry_at(there, f"tls_ca={root}") as registry:
            await registry.register(USER)
            await see(registry, USER.service, "user-1")
        with pytest.raises(RegistryError, match="certificate"):
            await registry_at(there, "tls=true").open()


# --- what isn't Consul


@asynccontextmanager
async def impostor(answer):
    """Run an HTTP server that answers everything the same."""

    async def serve(request):
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "127.0.0.1:{1}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        ('"10.0.0.1:8300"', {}, "is that a Consul agent"),
        ('"10.0.0.1:8300"', {"X-Consul-Index": "many"}, "is that a Consul agent"),
        ("<html>", {"X-Consul-Index": "1"}, "can't be read"),
        ('{"a": 1}', {"X-Consul-Index": "1"}, "can't be read"),
        (f'"{"x" * 5000}"', {"X-Consul-Index": "1"}, "is over 4096 bytes"),
    ],
    ids=["no index", "odd index", "no JSON", "other JSON", "too long"],
)
async def test_answers_that_are_not_consuls_are_refused(monkeypatch, body, headers, reason):
    monkeypatch.setattr(agent, "MAX_ANSWER", 4096)

    def answer(request):
        leader = request.path == "/v1/status/leader"
        return web.Response(text='"127.0.0.1:8300"' if leader else body, headers=headers)

    async with impostor(answer) as address, registry_at(address) as registry:
        with pytest.raises(RegistryError, match=reason):
            await anext(registry.watch("user"))


async def test_a_cluster_without_a_leader_is_not_usable():
    async with impostor(lambda _: web.Response(text='""')) as address:
        with pytest.raises(RegistryError, match="no leader"):
            await registry_at(address, "consistency=stale").open()


async def test_an_index_that_goes_backwards_is_forgotten():
    """As after a restore of Consul's state: the answer to an old index would never come."""
    asked = []
    enough = asyncio.Event()

    def answer(request):
        if request.path == "/v1/status/leader":
            return web.Response(text='"127.0.0.1:8300"')
        asked.append(request.query.get("index"))
        if len(asked) == 4:
            enough.set()
        return web.Response(text="{}", headers={"X-Consul-Index": {None: "90", "90": "40"}.get(asked[-1], "0")})

    async with (
        impostor(answer) as address,
        registry_at(address) as registry,
        aclosing(registry.watch("user")) as snapshots,
    ):
        assert await anext(snapshots) == ()
        await asyncio.wait_for(enough.wait(), PATIENCE)
    assert asked[:4] == [None, "90", None, "90"]


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        "consul://127.0.0.1:8500,127.0.0.2:8500",
        "consul://127.0.0.1:0",
        "consul://127.0.0.1:8500/path",
        "consul://?ttl=0",
        "consul://?timeout=0",
        "consul://?wait=1000",
        "consul://?connections=0",
        "consul://?prefix=a/b",
        "consul://?dc=a%26b",
        "consul://?consistency=weak",
        "consul://?format=json",
        "consul://?format=go-micro&prefix=x",
        "consul://?tls_cert=a",
        "consul://?tls_ca=/no/such/file",
        "consul://:token@127.0.0.1?token_file=x",
        "consul://:to%0aken@127.0.0.1",
        "consul://?nonsense=1",
    ],
)
async def test_a_url_that_makes_no_sense_is_refused(url):
    with pytest.raises(ConfigurationError):
        ConsulRegistry.from_url(Url.parse(url))
