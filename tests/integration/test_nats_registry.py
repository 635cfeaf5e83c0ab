"""What the registries on NATS promise beside the suite: servers that forget, permissions, strangers, tools."""

import asyncio
import json
import logging
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import nats
import nats.micro
import pytest
import pytest_asyncio

from ketch.errors import ConfigurationError, RegistryError
from ketch.nats.wire import round_trip
from ketch.registries.nats import NatsRegistry, NatsServicesRegistry
from ketch.registries.nats.keys import decode, encode
from ketch.registries.nats.micro import plain, semantic
from ketch.registry import Instance
from ketch.stats import Stats
from ketch.testing.registries import OutageSuite
from ketch.testing.servers.nats import nats_server
from ketch.testing.servers.relay import relay
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("nats-registry-own")

USER = Instance("go.micro.srv.user", "go.micro.srv.user-1", "127.0.0.1:5001", contracts=("shippy.user.v1.UserService",))
OTHER = Instance("go.micro.srv.user", "go.micro.srv.user-2", "127.0.0.1:5002")
SHORT = "ttl=2&timeout=2&connect_timeout=2"
KINDS = (f"nats://{{}}?{SHORT}", f"nats-services://{{}}?{SHORT}", f"nats://{{}}?format=go-micro&{SHORT}")
IDS = ("kv", "services", "go-micro")


def registry(url):
    parsed = Url.parse(url)
    return (NatsServicesRegistry if parsed.name == "nats-services" else NatsRegistry).from_url(parsed)


def ids(snapshot):
    return {instance.id for instance in snapshot}


async def until(snapshots, *expected):
    async with asyncio.timeout(15):
        async for snapshot in snapshots:
            if ids(snapshot) == set(expected):
                return snapshot
    raise AssertionError("the watch ended")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with nats_server(jetstream=True) as running:
        yield running


@pytest.fixture
def address(server):
    return server.url.partition("://")[2]


@asynccontextmanager
async def plain_client(address):
    client = await nats.connect(f"nats://{address}")
    try:
        yield client
    finally:
        await client.close()


async def ask(client, subject, body=b""):
    reply = await client.request(subject, body, timeout=2)
    return json.loads(reply.data)


# --- the bucket


async def test_a_server_that_comes_back_empty_gets_its_bucket_and_records_again():
    async with nats_server(jetstream=True) as server:
        url = f"nats://{server.url.partition('://')[2]}?{SHORT}"
        async with registry(url) as here, registry(url) as there, aclosing(there.watch(USER.service)) as snapshots:
            await here.register(USER)
            await until(snapshots, USER.id)
            async with plain_client(server.url.partition("://")[2]) as client:
                await ask(client, "$JS.API.STREAM.DELETE.KV_ketch-instances")
            await server.restart()
            await here.register(OTHER)
            await until(snapshots, USER.id, OTHER.id)
            async with registry(url) as fresh, aclosing(fresh.watch()) as all_there_are:
                await until(all_there_are, USER.id, OTHER.id)


async def test_a_bucket_that_an_operator_deletes_is_made_again(address):
    url = f"nats://{address}?bucket=deleted&{SHORT}"
    async with registry(url) as here, plain_client(address) as client:
        await here.register(USER)
        await ask(client, "$JS.API.STREAM.DELETE.KV_deleted")
        async with registry(url) as fresh, aclosing(fresh.watch(USER.service)) as snapshots:
            await until(snapshots, USER.id)


async def test_an_operator_reads_the_records_with_a_plain_client(address):
    async with registry(f"nats://{address}?bucket=read&{SHORT}") as here, plain_client(address) as client:
        await here.register(USER)
        bucket = await client.jetstream().key_value("read")
        assert sorted(await bucket.keys()) == [
            "contract.shippy/user/v1/UserService.go/micro/srv/user-1",
            "service.go/micro/srv/user.go/micro/srv/user-1",
        ]
        entry = await bucket.get("service.go/micro/srv/user.go/micro/srv/user-1")
        assert json.loads(entry.value)["address"] == USER.address


async def test_garbage_of_others_is_told_once_and_skipped(address, caplog):
    async with registry(f"nats://{address}?bucket=garbage&{SHORT}") as here, plain_client(address) as client:
        for _ in range(3):
            await client.publish("$KV.garbage.service.go/micro/srv/user.bad", b"\xff{")
            await client.publish("$KV.garbage.service.go/micro/srv/user.lies", b'{"service":"x","address":"h:1"}')
        await client.flush()
        await here.register(USER)
        with caplog.at_level(logging.WARNING, "ketch.registry"):
            async with aclosing(here.watch(USER.service)) as snapshots:
                await until(snapshots, USER.id)
        assert len([record for record in caplog.records if "is passed over" in record.message]) == 2


@pytest.mark.parametrize("markers", [True, False], ids=["with notices of expiry", "without"])
async def test_a_record_that_nobody_renews_goes_from_an_old_bucket_too(address, markers):
    """A bucket as servers before 2.11 have it: one age for all, and no word when a record has gone."""
    name = f"old-{markers}"
    config = {"name": f"KV_{name}", "subjects": [f"$KV.{name}.>"], "max_msgs_per_subject": 1, "max_age": 2 * 10**9}
    config |= {"allow_direct": True, "allow_rollup_hdrs": True, "discard": "new", "storage": "memory"}
    config["subject_delete_marker_ttl"] = 2 * 10**9 if markers else 0
    async with plain_client(address) as client:
        await ask(client, f"$JS.API.STREAM.CREATE.KV_{name}", json.dumps(config).encode())
        async with registry(f"nats://{address}?bucket={name}&{SHORT}") as here:
            await here.register(OTHER)
            record = b'{"service":"go.micro.srv.user","id":"dead","address":"h:1"}'
            await client.publish(f"$KV.{name}.service.go/micro/srv/user.dead", record)
            async with aclosing(here.watch(USER.service)) as snapshots:
                await until(snapshots, OTHER.id, "dead")
                await until(snapshots, OTHER.id)


async def test_a_bucket_that_forgets_too_soon_or_never_is_refused(address):
    async with plain_client(address) as client:
        for name, age in (("never", 0), ("soon", 10**9)):
            config = {"name": f"KV_{name}", "subjects": [f"$KV.{name}.>"], "max_age": age, "duplicate_window": 10**8}
            await ask(client, f"$JS.API.STREAM.CREATE.KV_{name}", json.dumps(config).encode())
            with pytest.raises(RegistryError, match=f"bucket {name} "):
                await registry(f"nats://{address}?bucket={name}&{SHORT}").open()


async def test_without_jetstream_the_error_names_what_works():
    async with nats_server() as server:
        with pytest.raises(RegistryError, match="nats-services") as caught:
            await registry(f"{server.url}?{SHORT}").open()
        assert "nats-server -js" in str(caught.value)


# --- the connection


async def test_a_wait_that_is_given_up_leaves_the_connection_as_it_was(address):
    async with relay(address) as network:
        client = await nats.connect(f"nats://{network.address}")
        network.cut()
        with pytest.raises(TimeoutError):
            await round_trip(client, 0.05)
        network.heal()
        await round_trip(client, 5.0)
        await client.close()


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
async def test_a_connection_that_the_server_ends_is_made_anew(address, kind):
    async with registry(kind.format(address)) as here, plain_client(address) as client:
        await here.register(USER)
        async with aclosing(here.watch(USER.service)) as snapshots:
            await until(snapshots, USER.id)
            for _ in range(2):
                driver = here._session._link._client
                before = driver.stats["reconnects"]
                await driver._send_command(b"PUB x 99999999\r\n")  # over the server's limit
                await driver._flush_pending()
                async with asyncio.timeout(10):
                    while driver.stats["reconnects"] == before:  # noqa: ASYNC110 - nobody else would know
                        await asyncio.sleep(0.02)
                await here.register(OTHER)
                await until(snapshots, USER.id, OTHER.id)
                await here.deregister(OTHER)
                await until(snapshots, USER.id)
            await ask(client, "$SRV.PING.go_micro_srv_user.go_micro_srv_user-1")
        assert not here.trouble


@pytest.mark.parametrize("text", ["", "a.b", "größe 🐍", "=", "a/b", "..", "*.>", "x" * 300])
def test_every_name_is_a_key_and_back(text):
    assert decode(encode(text)) == text
    assert not set(encode(text)) & set(". *>\t") or not text


def test_names_and_versions_are_what_the_services_protocol_takes():
    assert [plain(name) for name in ("user", "a_b", "go.micro.srv.user", "a.b_c", "ü")] == [
        "user",
        "a_b",
        "go_micro_srv_user",
        "a_b__c",
        "_xfc_",
    ]
    assert [semantic(version) for version in ("1.2.3-rc.1", "latest", "1.2", "01", "")] == [
        "1.2.3-rc.1",
        "0.0.0-latest",
        "0.0.0-1-2",
        "0.0.0-v01",
        "0.0.0-v",
    ]


@pytest.mark.parametrize("query", ["ttl=0", "ttl=x", "bucket=a.b", "storage=disk", "services=maybe", "replicas=9"])
def test_a_wrong_option_is_refused(query):
    with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
        registry(f"nats://127.0.0.1?{query}")


ACCOUNTS = """
authorization { users = [
  { user: admin, password: "s3cret-admin" }
  { user: noapi, password: "s3cret-noapi", permissions: { publish: { deny: ["$JS.>"] } } }
  { user: nosrv, password: "s3cret-nosrv", permissions: { subscribe: { deny: ["$SRV.>"] } } }
] }
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded():
    async with nats_server(jetstream=True, config=ACCOUNTS) as running:
        yield running.url.partition("://")[2]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
async def test_the_right_password_opens_and_the_wrong_one_is_not_told(guarded, kind):
    async with registry(kind.format(f"admin:s3cret-admin@{guarded}")) as here:
        await here.register(USER)
        assert "s3cret" not in here.location + repr(here._config)
    with pytest.raises(RegistryError, match="credentials") as caught:
        await registry(kind.format(f"admin:s3cret-wrong@{guarded}")).open()
    assert "s3cret" not in str(caught.value)


async def test_a_user_without_rights_to_jetstream_is_told_so(guarded):
    with pytest.raises(RegistryError, match=r"(?i)permissions violation.*JS\.API"):
        await registry(KINDS[0].format(f"noapi:s3cret-noapi@{guarded}")).open()


async def test_a_user_without_rights_to_the_services_protocol_is_refused_where_it_is_needed(guarded, caplog):
    with pytest.raises(RegistryError, match=r"(?i)permissions violation.*SRV"):
        await registry(KINDS[1].format(f"nosrv:s3cret-nosrv@{guarded}")).open()
    with caplog.at_level(logging.WARNING, "ketch.registry"):
        async with registry(KINDS[0].format(f"nosrv:s3cret-nosrv@{guarded}")) as here:
            await here.register(USER)
    assert "tools won't see this service" in caplog.text


# --- the services protocol


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
async def test_tools_of_nats_see_a_service_and_its_figures(address, kind):
    stats = Stats()
    method = stats.method("/shippy.user.v1.UserService/Get")
    async with registry(kind.format(address)) as here, plain_client(address) as client:
        here.observe(stats)
        await here.register(USER)
        method.calls, method.seconds = 4, 0.5
        method.fail("NOT_FOUND")
        ping = await ask(client, "$SRV.PING.go_micro_srv_user.go_micro_srv_user-1")
        assert nats.micro.service.ServicePing.from_dict(ping).version == "0.0.0-latest"
        info = nats.micro.service.ServiceInfo.from_dict(await ask(client, "$SRV.INFO.go_micro_srv_user"))
        assert info.metadata["ketch-service"] == USER.service
        assert [endpoint.metadata["address"] for endpoint in info.endpoints] == [USER.address]
        told = await ask(client, "$SRV.STATS")
        assert told["type"] == "io.nats.micro.v1.stats_response"
        (endpoint,) = told["endpoints"]
        assert (endpoint["num_requests"], endpoint["num_errors"], endpoint["last_error"]) == (4, 1, "NOT_FOUND")
        assert endpoint["average_processing_time"] == 125_000_000
        await here.deregister(USER)
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request("$SRV.PING.go_micro_srv_user.go_micro_srv_user-1", b"", timeout=2)


async def test_services_switched_off_are_not_seen_by_tools(address):
    async with registry(f"nats://{address}?services=off&{SHORT}") as here, plain_client(address) as client:
        await here.register(USER)
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request("$SRV.PING.go_micro_srv_user", b"", timeout=2)


async def test_a_service_that_is_not_ours_is_an_instance_and_goes_with_its_process(address):
    async with registry(KINDS[1].format(address)) as here, aclosing(here.watch("Strange_one")) as snapshots:
        async with plain_client(address) as client:
            service = await nats.micro.add_service(client, name="Strange_one", version="1.0.0")
            await service.add_endpoint(
                name="echo", subject="strange.echo", handler=lambda request: request.respond(b"")
            )
            (seen,) = await until(snapshots, service.id)
            assert (seen.address, seen.version) == ("strange.echo", "1.0.0")
            assert seen.metadata["transport"] == "nats-micro"
        await until(snapshots)


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff", b"[]", b"{}", b'{"name":"x","id":"y","metadata":{"ketch-ttl":"z"}}', b"[" * 5000]
)
async def test_garbage_as_an_answer_is_skipped(address, garbage):
    async with plain_client(address) as client, registry(KINDS[1].format(address)) as here:

        async def answer(message):
            await message.respond(garbage)

        await client.subscribe("$SRV.INFO.go_micro_srv_user", cb=answer)
        await client.flush()
        await here.register(USER)
        async with aclosing(here.watch(USER.service)) as snapshots:
            await until(snapshots, USER.id)


# --- go-micro's protocol, byte for byte as Go writes it


GO_NODE = (
    '{"name":"greeter","version":"latest","metadata":null,"endpoints":[{"request":{"name":"Request","type":"Request",'
    '"values":null},"response":null,"metadata":{},"name":"Greeter.Hello"}],"nodes":[{"metadata":{"protocol":"grpc",'
    '"transport":"grpc"},"id":"greeter-1","address":"127.0.0.1:7001"}]}'
)
GO_QUERY = (
    '{"Service":{"name":"go.micro.srv.user","version":"","metadata":null,"endpoints":null,"nodes":null},"Action":"get"}'
)


async def test_go_micro_is_answered_and_told(address):
    async with registry(KINDS[2].format(address)) as here, plain_client(address) as client:
        watch = await client.subscribe("micro.nats.watch")
        await client.flush()
        await here.register(USER)
        told = json.loads((await watch.next_msg(timeout=2)).data)
        assert (told["Action"], told["Service"]["name"]) == ("create", USER.service)
        for query in (GO_QUERY, '{"Service":null,"Action":"list"}'):
            answer = await ask(client, "micro.nats.query", query.encode())
            assert answer["nodes"][0]["address"] == USER.address
        await client.publish("micro.nats.query", b"\xffnonsense")
        await here.deregister(USER)
        while told["Action"] != "delete":
            told = json.loads((await watch.next_msg(timeout=2)).data)
        assert [node["id"] for node in told["Service"]["nodes"]] == [USER.id]


async def test_go_micro_is_asked_and_heard(address):
    async with plain_client(address) as client, registry(KINDS[2].format(address)) as here:
        asked = []

        async def answer(message):
            asked.append(message.data)
            await message.respond(GO_NODE.encode())

        subscription = await client.subscribe("micro.nats.query", cb=answer)
        await client.flush()
        async with aclosing(here.watch("greeter")) as snapshots:
            (seen,) = await until(snapshots, "greeter-1")
            assert (seen.address, seen.version, seen.metadata["protocol"]) == ("127.0.0.1:7001", "latest", "grpc")
            assert asked[0] == GO_QUERY.replace("go.micro.srv.user", "greeter").encode()
            await client.publish("micro.nats.watch", f'{{"Service":{GO_NODE},"Action":"delete"}}'.encode())
            await until(snapshots)
            await client.publish("micro.nats.watch", f'{{"Service":{GO_NODE},"Action":"create"}}'.encode())
            await until(snapshots, "greeter-1")
            await subscription.unsubscribe()  # it has died: it says nothing, and answers no more
            await until(snapshots)


# --- many, and clusters


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
async def test_processes_that_are_killed_at_once_all_go(address, kind):
    suite = OutageSuite()
    url = kind.format(address)
    doomed = [Instance("doomed", f"doomed-{number}", "127.0.0.1:7001") for number in range(3)]
    async with (
        registry(url) as here,
        AsyncExitStack() as stack,
        aclosing(here.watch("doomed")) as snapshots,
    ):
        processes = await asyncio.gather(*(stack.enter_async_context(suite.registrant(url, one)) for one in doomed))
        await until(snapshots, *(one.id for one in doomed))
        for process in processes:
            process.kill()
        await until(snapshots)
