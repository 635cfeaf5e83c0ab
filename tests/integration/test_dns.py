"""The registry `dns` reads what Knot DNS tells, and holds out against what liars do."""

import asyncio
import logging
import os
import socket
from contextlib import aclosing, asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import pytest_asyncio

from ketch.errors import ConfigurationError, RegistryError
from ketch.registries.dns import DnsRegistry
from ketch.registry import Instance
from ketch.testing.servers.knot import knot_server
from ketch.url import Url

pytestmark = [pytest.mark.xdist_group("knot"), pytest.mark.asyncio(loop_scope="function")]

OPTIONS = "domain=shop.test&timeout=1&min=0.1"
PATIENCE = 15


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    try:
        async with knot_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest_asyncio.fixture
async def knot(running):
    await running.write()
    return running


def registry_at(address, options=""):
    return DnsRegistry.from_url(Url.parse(f"dns://{address}?{OPTIONS}&{options}"))


@pytest.fixture
def at(knot):
    """Return a function from options to a registry that asks Knot."""
    address = knot.url.removeprefix("dns://")
    return lambda options="": registry_at(address, options)


async def until(snapshots, *addresses):
    """Read snapshots until one holds exactly these addresses; return it."""
    latest = None
    try:
        async with asyncio.timeout(PATIENCE):
            while latest is None or sorted(one.address for one in latest) != sorted(addresses):
                latest = await anext(snapshots)
    except TimeoutError:
        pytest.fail(f"expected {addresses}, the latest is {latest}")
    return latest


async def see(registry, name, *addresses):
    async with registry, aclosing(registry.watch(name)) as snapshots:
        return await until(snapshots, *addresses)


async def when(true):
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - it is a property, as a health check reads it
            await asyncio.sleep(0.02)


# --- records


async def test_each_address_of_each_target_of_an_srv_record_is_an_instance(knot, at):
    await knot.write(
        [
            "_grpc._tcp.go-micro-srv-user SRV 0 3 5001 one",
            "_grpc._tcp.go-micro-srv-user SRV 0 1 5002 two",
            "one A 127.0.0.1",
            "one AAAA ::1",
            "two A 127.0.0.2",
        ]
    )
    found = await see(at(), "go.micro.srv.user", "127.0.0.1:5001", "[::1]:5001", "127.0.0.2:5002")
    assert {one.service for one in found} == {"go.micro.srv.user"}
    assert len({one.id for one in found}) == 3
    assert [one.metadata for one in found if one.address == "127.0.0.2:5002"] == [
        {"target": "two.shop.test", "priority": "0", "weight": "1"}
    ]


async def test_addresses_alone_are_instances_at_the_port_of_the_url(knot, at):
    await knot.write(["user A 127.0.0.1", "user A 127.0.0.2", "user AAAA ::1"])
    found = await see(at("port=5001"), "user", "127.0.0.1:5001", "127.0.0.2:5001", "[::1]:5001")
    assert all(not one.metadata for one in found)
    await see(at("port=5001&family=4"), "user", "127.0.0.1:5001", "127.0.0.2:5001")
    await see(at("port=5001&family=6"), "user", "[::1]:5001")
    await see(at(), "user")


async def test_an_alias_is_followed(knot, at):
    await knot.write(["user CNAME real", "real A 127.0.0.1"])
    await see(at("port=5001"), "user", "127.0.0.1:5001")


async def test_only_the_lowest_priority_is_used_unless_all_are_wanted(knot, at):
    """RFC 2782: a target of a higher value is for when those of lower ones are gone."""
    await knot.write(
        [
            "_grpc._tcp.user SRV 10 0 5001 main",
            "_grpc._tcp.user SRV 20 0 5002 spare",
            "main A 127.0.0.1",
            "spare A 127.0.0.2",
        ]
    )
    (one,) = await see(at(), "user", "127.0.0.1:5001")
    assert "weight" not in one.metadata, "where nobody has a weight, all are equal"
    found = await see(at("priorities=all"), "user", "127.0.0.1:5001", "127.0.0.2:5002")
    assert sorted(one.metadata["priority"] for one in found) == ["10", "20"]


async def test_a_service_that_says_it_is_not_there_is_not_there(knot, at):
    """RFC 2782: the target "." means that the service is decidedly not available."""
    await knot.write(["_grpc._tcp.user SRV 0 0 0 .", "user A 127.0.0.1"])
    await see(at("port=5001"), "user")


async def test_another_kind_of_srv_record_may_be_asked_for_or_none(knot, at):
    await knot.write(["_http._tcp.user SRV 0 0 8080 one", "one A 127.0.0.1", "user A 127.0.0.2"])
    await see(at("srv=_http._tcp"), "user", "127.0.0.1:8080")
    await see(at("srv=&port=5001"), "user", "127.0.0.2:5001")


async def test_an_answer_too_large_for_a_datagram_comes_whole(knot, at):
    await knot.write(
        [
            line
            for number in range(200)
            for line in (f"_grpc._tcp.user SRV 0 0 5001 pod-{number}", f"pod-{number} A 127.0.1.{number}")
        ]
    )
    await see(at(), "user", *(f"127.0.1.{number}:5001" for number in range(200)))


# --- names


@pytest.mark.parametrize(
    ("options", "service", "record"),
    [
        ("", "Go.Micro_srv.User", "go-micro-srv-user"),
        ("dots=keep", "user.accounts", "user.accounts"),
        ("name={service}.eu", "user", "user.eu"),
        ("host.user=elsewhere.shop.test", "user", "elsewhere"),
    ],
    ids=["one label", "dots kept", "template", "named host"],
)
async def test_a_service_is_found_under_its_name_in_dns(knot, at, options, service, record):
    await knot.write([f"{record} A 127.0.0.1"])
    (one,) = await see(at(f"port=5001&{options}"), service, "127.0.0.1:5001")
    assert one.service == service


async def test_a_contract_leads_to_the_service_that_serves_it(knot, at):
    await knot.write(["user A 127.0.0.1"])
    options = "port=5001&contract.shippy.user.v1.UserService=user"
    (one,) = await see(at(options), "shippy.user.v1.UserService", "127.0.0.1:5001")
    assert (one.service, one.contracts) == ("user", ("shippy.user.v1.UserService",))
    assert (one,) == await see(at(options), "user", "127.0.0.1:5001")


async def test_without_a_name_the_services_of_the_url_are_seen(knot, at):
    await knot.write(["user A 127.0.0.1", "email A 127.0.0.2", "other A 127.0.0.3"])
    await see(at("port=5001&contract.a.v1.A=user&host.email=email.shop.test"), None, "127.0.0.1:5001", "127.0.0.2:5001")


async def test_names_are_searched_for_as_resolv_conf_says(knot, tmp_path):
    """In a Kubernetes pod `user` is `user.NAMESPACE.svc.cluster.local`, by the search list."""
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\nsearch nowhere.shop.test ns.shop.test\noptions ndots:5\n")
    await knot.write(["_grpc._tcp.user.ns SRV 0 0 5001 pod", "pod A 127.0.0.1"])
    url = f"{knot.url}?timeout=1&resolv_conf={file}"
    await see(DnsRegistry.from_url(Url.parse(url)), "user", "127.0.0.1:5001")


async def test_a_name_that_dns_cannot_hold_finds_nobody_and_is_said_once(at, caplog):
    async with at("port=1") as registry:
        for _ in range(2):
            async with aclosing(registry.watch("größe/..")) as snapshots:
                assert await anext(snapshots) == ()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_what_is_registered_here_stands_for_the_same_address_in_dns(knot, at):
    await knot.write(["user A 127.0.0.1", "user A 127.0.0.2"])
    own = Instance("user", "me", "127.0.0.1:5001", version="2")
    async with at("port=5001") as registry, aclosing(registry.watch("user")) as snapshots:
        await registry.register(own)
        found = await until(snapshots, "127.0.0.1:5001", "127.0.0.2:5001")
        assert own in (found if own in found else await until(snapshots, "127.0.0.1:5001", "127.0.0.2:5001"))


# --- changes


async def test_a_watcher_is_told_of_what_comes_and_goes(knot, at):
    async with at("port=5001") as registry, aclosing(registry.watch("user")) as snapshots:
        await until(snapshots)
        await knot.write(["user A 127.0.0.1"])
        await until(snapshots, "127.0.0.1:5001")
        await knot.write(["user A 127.0.0.1", "user A 127.0.0.2"])
        await until(snapshots, "127.0.0.1:5001", "127.0.0.2:5001")
        await knot.write(["_grpc._tcp.user SRV 0 0 6001 pod", "pod A 127.0.0.3", "user A 127.0.0.3"])
        await until(snapshots, "127.0.0.3:6001")
        await knot.write()
        await until(snapshots)


# --- outages


async def test_what_was_known_is_kept_while_no_resolver_answers(knot, at, caplog):
    caplog.set_level(logging.INFO, "ketch.registry")
    await knot.write(["user A 127.0.0.1"])
    async with at("port=5001") as registry, aclosing(registry.watch("user")) as snapshots:
        await until(snapshots, "127.0.0.1:5001")
        change = asyncio.ensure_future(anext(snapshots))
        await knot.kill()
        await when(lambda: registry.trouble)
        assert knot.url.removeprefix("dns://") in registry.trouble
        assert not change.done()
        await knot.write(["user A 127.0.0.1", "user A 127.0.0.2"])
        await knot.start()
        assert len(await asyncio.wait_for(change, PATIENCE)) == 2
        await when(lambda: not registry.trouble)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_watch_that_begins_while_no_resolver_answers_fails_within_its_time(knot, at):
    await knot.kill()
    try:
        async with asyncio.timeout(PATIENCE), at("port=5001") as registry:
            with pytest.raises(RegistryError, match=knot.url.removeprefix("dns://")):
                await anext(registry.watch("user"))
    finally:
        await knot.start()


async def test_another_resolver_is_asked_when_one_is_silent(knot):
    await knot.write(["user A 127.0.0.1"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"dns://127.0.0.1:{silent.getsockname()[1]},{knot.url.removeprefix('dns://')}"
        registry = DnsRegistry.from_url(Url.parse(f"{url}?domain=shop.test&srv=&port=5001&family=4&timeout=3"))
        await see(registry, "user", "127.0.0.1:5001")


# --- liars


class Liar(asyncio.DatagramProtocol):
    """A resolver over UDP that answers what its function returns, in turn: messages or bytes."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def connection_made(self, transport):
        self.transport = transport
        self.address = "127.0.0.1:{1}".format(*transport.get_extra_info("sockname"))

    def datagram_received(self, data, peer):
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0])
        for reply in self.answer(query):
            self.transport.sendto(reply if isinstance(reply, bytes) else reply.to_wire(), peer)


@asynccontextmanager
async def liar(answer):
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Liar(answer), ("127.0.0.1", 0))
    try:
        yield protocol
    finally:
        transport.close()


def reply(query, *records, rcode=dns.rcode.NOERROR, additional=()):
    response = dns.message.make_response(query)
    response.set_rcode(rcode)
    response.answer = [dns.rrset.from_text(*record) for record in records]
    response.additional = [dns.rrset.from_text(*record) for record in additional]
    return response


def address(query):
    return reply(query, (query.question[0].name, 1, "IN", "A", "127.0.0.1"))


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, None], ids=["failure", "refusal", "silence"])
async def test_an_answer_that_says_nothing_takes_nobody_away(rcode):
    def answer(query):
        return [address(query)] if not failing else [] if rcode is None else [reply(query, rcode=rcode)]

    failing = False
    async with liar(answer) as resolver:
        registry = registry_at(resolver.address, "srv=&port=5001&family=4")
        async with registry, aclosing(registry.watch("user")) as snapshots:
            await until(snapshots, "127.0.0.1:5001")
            change = asyncio.ensure_future(anext(snapshots))
            failing = True
            await when(lambda: registry.trouble)
            failing = False
            await when(lambda: not registry.trouble)
            assert not change.done()
            change.cancel()
            await asyncio.wait([change])


async def test_that_a_name_does_not_exist_takes_its_instances_away():
    def answer(query):
        return [reply(query, rcode=dns.rcode.NXDOMAIN) if gone else address(query)]

    gone = False
    async with liar(answer) as resolver:
        registry = registry_at(resolver.address, "srv=&port=5001&family=4")
        async with registry, aclosing(registry.watch("user")) as snapshots:
            await until(snapshots, "127.0.0.1:5001")
            gone = True
            await until(snapshots)
            assert not registry.trouble


async def test_answers_to_other_questions_are_passed_over():
    def answer(query):
        wrong_id = address(query)
        wrong_id.id ^= 1
        wrong_id.answer = [dns.rrset.from_text(query.question[0].name, 1, "IN", "A", "127.0.0.66")]
        another = dns.message.make_query("other.shop.test", "A")
        another.id = query.id
        return [b"garbage", wrong_id, address(another), address(query)]

    async with liar(answer) as resolver:
        await see(registry_at(resolver.address, "srv=&port=5001&family=4"), "user", "127.0.0.1:5001")


async def test_addresses_of_others_that_come_along_are_passed_over():
    def answer(query):
        name = query.question[0].name
        if name.to_text().startswith("_grpc"):
            target = "pod.shop.test."
            return [
                reply(query, (name, 1, "IN", "SRV", f"0 0 5001 {target}"), additional=[("x.", 1, "IN", "A", "6.6.6.6")])
            ]
        return [address(query) if query.question[0].rdtype == dns.rdatatype.A else reply(query)]

    async with liar(answer) as resolver:
        await see(registry_at(resolver.address), "user", "127.0.0.1:5001")


async def test_a_resolver_that_gives_no_time_is_not_asked_without_end():
    def answer(query):
        return [reply(query, (query.question[0].name, 0, "IN", "A", "127.0.0.1"))]

    async with liar(answer) as resolver:
        url = f"dns://{resolver.address}?domain=shop.test&srv=&port=5001&family=4&min=30"
        registry = DnsRegistry.from_url(Url.parse(url))
        async with registry, aclosing(registry.watch("user")) as snapshots:
            await until(snapshots, "127.0.0.1:5001")
            async with aclosing(registry.watch("other")) as others:
                await until(others, "127.0.0.1:5001")
        assert [str(question.name) for question in resolver.asked] == ["user.shop.test.", "other.shop.test."]


# --- URLs


@pytest.mark.parametrize(
    "url",
    [
        "dns://resolver.example",
        "dns://127.0.0.1:0",
        "dns://127.0.0.1:99999",
        "dns://user@127.0.0.1",
        "dns://127.0.0.1/path",
        "dns://?srv=",
        "dns://?srv=grpc",
        "dns://?name=user",
        "dns://?name={service}..x",
        "dns://?port=70000",
        "dns://?port=1.5",
        "dns://?family=5",
        "dns://?dots=no",
        "dns://?host.user=a b",
        "dns://?contract.a.B=",
        "dns://?min=10&max=5",
        "dns://?timeout=0",
        "dns://?nonsense=1",
    ],
)
async def test_a_url_that_makes_no_sense_is_refused(url):
    with pytest.raises(ConfigurationError):
        DnsRegistry.from_url(Url.parse(url))


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("dns", "/etc/resolv.conf"),
        ("dns://10.96.0.10,10.96.0.11:5353", "10.96.0.10:53, 10.96.0.11:5353"),
        ("dns://[::1]:5353", "[::1]:5353"),
        ("dns://[fd00::10]", "[fd00::10]:53"),
    ],
)
async def test_its_location_is_its_resolvers(url, location):
    assert DnsRegistry.from_url(Url.parse(url)).location == location
