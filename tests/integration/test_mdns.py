"""Multicast DNS as others see it: a process that is killed, a plain resolver, go-micro's form, rubbish."""

import asyncio
import random
import socket
import sys
from contextlib import aclosing

import pytest

from ketch.errors import ConfigurationError, RegistryError
from ketch.registries.mdns import MdnsRegistry
from ketch.registries.mdns.cache import MOST_OF_ONE, Cache
from ketch.registries.mdns.packet import (
    ANY,
    PTR,
    SRV,
    TXT,
    A,
    Packet,
    Question,
    Record,
    Srv,
    decode,
    encode,
    name,
)
from ketch.registry import Instance
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("mdns")

USER = Instance(
    "go.micro.srv.user", "user-1", "127.0.0.1:5001", "1.2.0", ("shippy.user.v1.UserService",), {"zone": "a"}
)
REGISTRANT = """
import asyncio, sys
from ketch.registries.mdns import MdnsRegistry
from ketch.registry import Instance
from ketch.url import Url

async def main():
    async with MdnsRegistry.from_url(Url.parse(sys.argv[1])) as registry:
        await registry.register(Instance("doomed", "doomed-1", "127.0.0.1:7001"))
        print("registered", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def make(port):
    def made(**options):
        said = "&".join(f"{option}={value}" for option, value in {"ttl": 2, **options}.items())
        return MdnsRegistry.from_url(Url.parse(f"mdns://?interface=127.0.0.1&port={port}&{said}"))

    return made


async def until(snapshots, *expected):
    async with asyncio.timeout(15):
        async for snapshot in snapshots:
            if sorted(one.id for one in snapshot) == sorted(expected):
                return snapshot
    pytest.fail(f"{expected} did not come")


async def test_an_instance_goes_when_its_process_is_killed(make, port):
    url = f"mdns://?interface=127.0.0.1&port={port}&ttl=2"
    async with make() as registry, aclosing(registry.watch("doomed")) as snapshots:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", REGISTRANT, url, stdout=asyncio.subprocess.PIPE
        )
        assert await process.stdout.readline() == b"registered\n"
        await until(snapshots, "doomed-1")
        process.kill()
        await process.wait()
        await until(snapshots)


async def test_an_instance_stays_well_beyond_its_time_to_live(make):
    async with make() as one, make() as other, aclosing(other.watch(USER.service)) as snapshots:
        await one.register(USER)
        await until(snapshots, "user-1")
        change = asyncio.ensure_future(anext(snapshots))
        done, _ = await asyncio.wait([change], timeout=5)
        assert not done
        change.cancel()
        await asyncio.wait([change])


class Resolver(asyncio.DatagramProtocol):
    """A plain one, which asks from a port of its own."""

    def __init__(self):
        self.heard = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.heard.put_nowait(decode(data))


async def ask(port, *questions, records=(), patience=5):
    """Return the first answer."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.settimeout(0)
    plain.bind(("127.0.0.1", 0))
    plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    transport, resolver = await asyncio.get_running_loop().create_datagram_endpoint(Resolver, sock=plain)
    try:
        transport.sendto(encode(Packet(questions, records, id=7)), ("224.0.0.251", port))
        return await asyncio.wait_for(resolver.heard.get(), patience)
    finally:
        transport.close()
        await asyncio.sleep(0)


async def test_a_plain_resolver_finds_a_service_as_dns_sd_says(make, port):
    async with make() as registry:
        await registry.register(USER)
        answer = await ask(port, Question(name("_ketch._tcp.local"), PTR))
    assert answer.response
    assert answer.id == 7
    kinds = {record.kind: record for record in answer.records}
    assert kinds[SRV].data.port == 5001
    assert kinds[TXT].strings[0] == b"ketch=1"
    assert kinds[TXT].name == name("user-1._ketch._tcp.local")


async def test_what_the_asker_knows_is_not_told_again(make, port):
    async with make(ttl=100) as registry:
        await registry.register(USER)
        question = Question(name("_ketch._tcp.local"), PTR)
        answer = await ask(port, question)
        known = tuple(one for one in answer.records if one.kind == PTR and one.name == question.name)
        with pytest.raises(TimeoutError):
            await ask(port, question, records=known, patience=0.5)


async def test_what_go_micro_would_ask_is_answered_as_it_reads_it(make, port):
    async with make(format="go-micro") as registry:
        await registry.register(USER)
        answer = await ask(port, Question(name("go.micro.srv.user.micro"), PTR))
        listed = await ask(port, Question(name("_services.micro"), PTR))
    by_kind = {record.kind: record for record in answer.records}
    assert by_kind[SRV].name == name("user-1.go.micro.srv.user.micro")
    assert b"".join(by_kind[TXT].strings).startswith(b"789c")  # zlib, in hexadecimal
    assert any(one.data == name("go.micro.srv.user._services.micro") for one in listed.records)


async def test_both_forms_find_by_name_by_contract_and_all(make):
    for form in ("ketch", "go-micro"):
        async with make(format=form) as one, make(format=form) as other:
            await one.register(USER)
            for wanted in (USER.service, USER.contracts[0], None):
                async with aclosing(other.watch(wanted)) as snapshots:
                    (seen,) = await until(snapshots, "user-1")
                    assert (seen.service, seen.address, seen.version) == (USER.service, USER.address, USER.version)
                    assert (seen.contracts, seen.metadata["zone"]) == (USER.contracts, "a")


async def test_a_contract_is_found_by_who_has_asked_for_its_service_before(make):
    async with make(format="go-micro") as registry:
        await registry.register(USER)
        for wanted in (USER.service, *USER.contracts):
            async with aclosing(registry.watch(wanted)) as snapshots:
                assert [one.id for one in await anext(snapshots)] == ["user-1"]


async def test_go_micros_form_carries_addresses_only(make):
    async with make(format="go-micro") as registry:
        with pytest.raises(RegistryError, match="IP address"):
            await registry.register(Instance("a", "b", "unix:/run/a.sock"))


async def test_rubbish_in_the_group_does_no_harm(make, port):
    chance = random.Random(5)
    async with make() as one, make() as other, aclosing(other.watch(USER.service)) as snapshots:
        await one.register(USER)
        await until(snapshots, "user-1")
        good = encode(Packet((), one._form.tell(USER, 9), response=True))
        for _ in range(300):
            spoilt = bytearray(good)
            for _ in range(chance.randrange(1, 6)):
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
            one._ether.send(bytes(spoilt[: chance.randrange(1, len(spoilt) + 1)]))
        await asyncio.sleep(0.2)
        email = Instance("go.micro.srv.user", "user-2", "127.0.0.1:5002")
        await one.register(email)
        async with asyncio.timeout(15):
            async for snapshot in snapshots:
                if {"user-1", "user-2"} <= {instance.id for instance in snapshot}:
                    break


async def test_an_instance_that_no_packet_carries_is_refused_and_the_others_stay(make):
    wide = Instance("go.micro.srv.user", "wide", "127.0.0.1:1", contracts=tuple(f"a.B{n}" for n in range(600)))
    async with make() as one, make() as other, aclosing(other.watch(USER.service)) as snapshots:
        with pytest.raises(RegistryError, match="more than the 8952 that multicast DNS carries"):
            await one.register(wide)
        await one.register(USER)
        await until(snapshots, "user-1")
        assert not one.trouble


async def test_an_instance_lives_as_long_as_its_own_registry_says(make):
    """A watcher with a shorter time to live doesn't lose it between two renewals."""
    async with make(ttl=12) as one, make(ttl=1) as other, aclosing(other.watch(USER.service)) as snapshots:
        await one.register(USER)
        await until(snapshots, "user-1")
        change = asyncio.ensure_future(anext(snapshots))
        done, _ = await asyncio.wait([change], timeout=2)
        assert not done
        change.cancel()
        await asyncio.wait([change])


async def test_a_short_life_is_over_in_time_beside_longer_ones():
    emptied = asyncio.Event()
    cache = Cache(lambda: emptied.set() if len(cache.instances) == 1 and cache.instances[0].id == "long" else None)
    cache.keep(name("long"), Instance("a", "long", "127.0.0.1:1"), 600, "10.0.0.1", 100)
    emptied.clear()
    cache.keep(name("short"), Instance("a", "short", "127.0.0.1:1"), 0.1, "10.0.0.1", 100)
    try:
        await asyncio.wait_for(emptied.wait(), 5)
    finally:
        cache.close()


async def test_one_peer_cannot_fill_the_memory_nor_crowd_out_the_others():
    cache = Cache(lambda: None)
    try:
        for number in range(5000):
            cache.keep(name(f"n{number}"), Instance("a", f"n{number}", "127.0.0.1:1"), 60, "10.0.0.1", 8000)
        assert len(cache.instances) * 8000 <= MOST_OF_ONE
        cache.keep(name("other"), Instance("a", "other", "127.0.0.1:1"), 60, "10.0.0.2", 8000)
        assert any(one.id == "other" for one in cache.instances)
        for number in range(5000):
            cache.drop(name(f"n{number}"))
        cache.keep(name("again"), Instance("a", "again", "127.0.0.1:1"), 60, "10.0.0.1", 8000)
        assert {one.id for one in cache.instances} == {"other", "again"}
    finally:
        cache.close()


async def test_many_who_ask_at_once_get_one_answer_by_multicast(make):
    answers = []
    answered = asyncio.Event()

    def take(data, _):
        packet = decode(data)
        if packet.response:
            answers.append(packet)
            answered.set()

    async with make(ttl=1000) as asker, make(ttl=1000) as one:
        asker._ether._take = take
        await one.register(USER)
        async with asyncio.timeout(10):
            await answered.wait()  # the announcement
        answered.clear()
        answers.clear()
        question = encode(Packet((Question(name("_ketch._tcp.local"), PTR),)))
        for _ in range(200):
            asker._ether.send(question)
        async with asyncio.timeout(10):
            await answered.wait()
        await asyncio.sleep(0.2)  # longer than any answer waits
        assert len(answers) <= 5


def test_what_is_written_is_read_back_with_names_that_share_their_ends():
    label = name("user-1._ketch._tcp.local")
    records = (
        Record(label[1:], PTR, 9, label),
        Record((b"_x", b"_sub", *label[1:]), PTR, 9, label),
        Record(label, SRV, 9, Srv(5001, name("host.local")), flush=True),
        Record(label, TXT, 9, (b"ketch=1", b"x" * 255), flush=True),
        Record(name("host.local"), A, 9, "10.0.0.1"),
    )
    packet = Packet((Question(label[1:], PTR, unicast=True),), records, response=True, id=9)
    data = encode(packet)
    assert decode(data) == packet
    assert data.count(b"_ketch") == 1


@pytest.mark.parametrize("seed", range(5))
def test_any_bytes_are_a_message_or_an_error(seed):
    chance = random.Random(seed)
    good = encode(Packet((Question(name("a.b.local"), ANY),), response=False, id=3))
    for _ in range(2000):
        data = bytearray(good + chance.randbytes(chance.randrange(40)))
        for _ in range(chance.randrange(8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            decode(bytes(data))
        except RegistryError:
            continue


def test_a_name_that_points_at_itself_is_refused():
    with pytest.raises(RegistryError, match="forwards"):
        decode(b"\0\0\0\0\0\1\0\0\0\0\0\0" + b"\xc0\x0c\0\x0c\0\1")


@pytest.mark.parametrize("options", ["interface=eth0", "port=0", "port=99999", "ttl=0", "format=bonjour", "domain2=x"])
def test_what_its_url_cannot_say_is_refused(options):
    with pytest.raises(ConfigurationError):
        MdnsRegistry.from_url(Url.parse(f"mdns://?{options}"))


async def test_an_interface_that_is_not_there_is_said_so():
    with pytest.raises(RegistryError, match="no multicast"):
        async with MdnsRegistry.from_url(Url.parse("mdns://?interface=203.0.113.7")):
            pass
