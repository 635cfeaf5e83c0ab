"""etcd as an operator sees it, and what a cluster of it does to a registry."""

import asyncio
import json
import logging
import os
import subprocess
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest
import pytest_asyncio
import trustme

from ketch.errors import ConfigurationError, RegistryError
from ketch.registries.etcd import EtcdRegistry
from ketch.registry import Instance
from ketch.testing.registries import OutageSuite
from ketch.testing.servers import etcd_server, free_port, program
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("etcd")

USER = Instance("go.micro.srv.user", "user-1", "127.0.0.1:5001", contracts=("shippy.user.v1.UserService",))
EMAIL = Instance("go.micro.srv.email", "email-1", "127.0.0.1:5002")

suite = OutageSuite()
prefixes = iter(range(1_000_000))


@pytest.fixture(scope="module")
def etcdctl():
    try:
        found = program("etcdctl", "apt install etcd-client", "/usr/bin")
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))

    def run(url, *command, options=()):
        endpoint = url.partition("://")[2].rpartition("@")[2]
        done = subprocess.run(
            [found, "--endpoints", endpoint, *options, *command],
            env={"ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etcd(etcdctl):
    async with etcd_server() as server:
        yield server


@pytest.fixture
def prefix():
    return f"/own-{next(prefixes)}"


@pytest.fixture
def url(etcd, prefix):
    return f"{etcd.url}?prefix={prefix}&ttl=2&timeout=1.5"


def at(url):
    return EtcdRegistry.from_url(Url.parse(url))


# --- what an operator sees, and does


async def test_an_operator_reads_the_records_with_etcdctl(url, etcd, prefix, etcdctl):
    async with at(url) as registry:
        await registry.register(USER)
        told = etcdctl(etcd.url, "get", "--prefix", prefix, "--keys-only").split()
        assert told == [
            f"{prefix}/contracts/shippy.user.v1.UserService/user-1",
            f"{prefix}/services/go.micro.srv.user/user-1",
        ]
        value = etcdctl(etcd.url, "get", f"{prefix}/services/go.micro.srv.user/user-1", "--print-value-only")
        assert json.loads(value)["address"] == USER.address
    assert etcdctl(etcd.url, "get", "--prefix", prefix) == ""


async def test_a_record_that_an_operator_wrote_is_seen(url, etcd, prefix, etcdctl):
    record = '{"service": "legacy", "id": "old", "address": "10.0.0.1:80"}'
    etcdctl(etcd.url, "put", f"{prefix}/services/legacy/old", record)
    async with at(url) as registry:
        await suite.see(registry, "legacy", Instance("legacy", "old", "10.0.0.1:80"))
        etcdctl(etcd.url, "del", f"{prefix}/services/legacy/old")
        await suite.see(registry, "legacy")


async def test_a_record_that_an_operator_deleted_comes_back(url, etcd, prefix, etcdctl):
    async with at(url) as registry, aclosing(registry.watch(USER.service)) as snapshots:
        await registry.register(USER)
        await suite.until(snapshots, USER)
        etcdctl(etcd.url, "del", "--prefix", prefix)
        await suite.until(snapshots)
        await suite.until(snapshots, USER)


async def test_a_lease_that_an_operator_revoked_is_replaced_by_a_new_one(url, etcd, prefix, etcdctl):
    async with at(url) as registry, at(url) as other, aclosing(other.watch()) as snapshots:
        await registry.register(USER)
        await registry.register(EMAIL)
        await suite.until(snapshots, USER, EMAIL)
        found = json.loads(etcdctl(etcd.url, "get", "--prefix", prefix, "-w", "json"))
        (lease,) = {pair["lease"] for pair in found["kvs"]}
        etcdctl(etcd.url, "lease", "revoke", f"{lease:x}")
        await suite.until(snapshots)
        await suite.until(snapshots, USER, EMAIL)
        assert registry.trouble == ""


async def test_registering_on_a_lease_that_was_just_revoked_brings_all_back(url, etcd, prefix, etcdctl):
    async with at(url) as registry:
        await registry.register(USER)
        found = json.loads(etcdctl(etcd.url, "get", "--prefix", prefix, "-w", "json"))
        etcdctl(etcd.url, "lease", "revoke", f"{found['kvs'][0]['lease']:x}")
        await registry.register(EMAIL)
        await suite.see(registry, None, USER, EMAIL)


async def test_garbage_under_the_prefix_is_passed_over_and_told_of_once(url, etcd, prefix, etcdctl, caplog):
    garbage = ["no json", "{}", '{"service": "other", "id": "x", "address": "h:1"}', "x" * 100_000]
    async with at(url) as registry, aclosing(registry.watch("svc")) as snapshots:
        await suite.until(snapshots)
        for number, value in enumerate(garbage):
            etcdctl(etcd.url, "put", f"{prefix}/services/svc/{number}", value)
            etcdctl(etcd.url, "put", f"{prefix}/services/svc/{number}", value)
        fine = Instance("svc", "fine", "h:1")
        await registry.register(fine)
        await suite.until(snapshots, fine)
        await suite.see(registry, None, fine)
    assert sum("passed over" in message for message in caplog.messages) == len(garbage)


async def test_more_records_than_fit_into_one_answer_are_read(etcd, prefix):
    """320 records of some 60 KB are more than the 16 MiB that one answer may have."""
    async with at(f"{etcd.url}?prefix={prefix}") as registry:
        crowd = [Instance("big", f"id-{n:03}", "h:1", metadata={"x": "y" * 60_000}) for n in range(320)]
        for instance in crowd:
            await registry.register(instance)
        async with aclosing(registry.watch("big")) as snapshots:
            assert len(await anext(snapshots)) == len(crowd)


async def test_prefixes_are_worlds_of_their_own(etcd, prefix):
    async with at(f"{etcd.url}?prefix={prefix}/a") as one, at(f"{etcd.url}?prefix={prefix}/a/services/") as two:
        await one.register(USER)
        await two.register(EMAIL)
        await suite.see(one, None, USER)
        await suite.see(two, None, EMAIL)


async def test_leaving_does_not_take_away_what_a_successor_registered_under_the_same_id(url):
    async with at(url) as successor, aclosing(successor.watch(USER.service)) as snapshots:
        async with at(url) as leaving, at(url) as dropping:
            await leaving.register(USER)
            await dropping.register(USER)
            moved = Instance(USER.service, USER.id, "127.0.0.1:6001")
            await successor.register(moved)
            await dropping.deregister(USER)
        await suite.until(snapshots, moved)
        await suite.see(successor, USER.service, moved)


async def test_processes_that_are_killed_at_once_all_go(url):
    crowd = [Instance("crowd", f"id-{number}", "127.0.0.1:7001") for number in range(4)]
    async with at(url) as registry, aclosing(registry.watch("crowd")) as snapshots, AsyncExitStack() as stack:
        starting = (stack.enter_async_context(suite.registrant(url, instance)) for instance in crowd)
        processes = await asyncio.gather(*starting)
        await suite.until(snapshots, *crowd)
        for process in processes:
            process.kill()
        await suite.until(snapshots)


# --- go-micro


async def test_in_go_micros_format_its_keys_and_records_are_written_and_read(etcd, etcdctl):
    url = f"{etcd.url}?format=go-micro&ttl=2&timeout=1.5"
    odd = Instance("a/b", "x/y", "127.0.0.1:5003", "1.0", metadata={"zone": "z1"})
    async with at(url) as registry, aclosing(registry.watch(USER.contracts[0])) as snapshots:
        await registry.register(USER)
        await registry.register(odd)
        assert (await anext(snapshots))[0].address == USER.address
        assert etcdctl(etcd.url, "get", "--prefix", "/micro/registry/", "--keys-only").split() == [
            "/micro/registry/a-b/x-y",
            "/micro/registry/go.micro.srv.user/user-1",
        ]
        written = json.loads(etcdctl(etcd.url, "get", "/micro/registry/a-b/x-y", "--print-value-only"))
        assert (written["name"], written["version"]) == ("a/b", "1.0")
        (node,) = written["nodes"]
        assert (node["id"], node["address"]) == ("x/y", "127.0.0.1:5003")
        assert node["metadata"]["protocol"] == "grpc"
        assert node["metadata"]["zone"] == "z1"

        theirs = {"name": "greeter", "version": "latest", "metadata": None, "endpoints": None}
        theirs["nodes"] = [{"id": "greeter-1", "address": "10.0.0.1:80", "metadata": {"protocol": "mucp"}}]
        etcdctl(etcd.url, "put", "/micro/registry/greeter/greeter-1", json.dumps(theirs))
        metadata = {"protocol": "mucp"}
        await suite.see(registry, "greeter", Instance("greeter", "greeter-1", "10.0.0.1:80", metadata=metadata))
        etcdctl(etcd.url, "put", "/micro/registry/greeter/greeter-1", json.dumps({**theirs, "name": "other"}))
        await suite.see(registry, "greeter")
        etcdctl(etcd.url, "del", "/micro/registry/greeter/greeter-1")
    assert etcdctl(etcd.url, "get", "--prefix", "/micro/registry/") == ""


# --- what the store does


async def test_what_was_compacted_before_it_was_watched_is_read_anew(url, etcd, etcdctl, monkeypatch):
    async with at(url) as registry, at(url) as other:
        following = registry._session._following
        read = following._read
        reads = []

        async def read_and_compact(name):
            view = await read(name)
            reads.append(view.revision)
            if len(reads) == 1:
                await other.register(USER)
                await other.register(EMAIL)
                later = (await read(name)).revision
                etcdctl(etcd.url, "compact", str(later))
            return view

        monkeypatch.setattr(following, "_read", read_and_compact)
        async with aclosing(registry.watch(USER.service)) as snapshots:
            await suite.until(snapshots, USER)
        assert len(reads) == 2
        assert registry.trouble == ""


async def test_a_server_that_has_forgotten_everything_is_told_again(etcdctl):
    async with etcd_server(keeps=False) as server:
        url = f"{server.url}?ttl=2&timeout=1.5"
        async with at(url) as registry, at(url) as client, aclosing(client.watch(USER.service)) as snapshots:
            await registry.register(USER)
            await suite.until(snapshots, USER)
            change = asyncio.ensure_future(anext(snapshots))
            await server.restart()
            async with at(url) as fresh:
                await suite.see(fresh, USER.service, USER)
            await suite.calm(client)
            assert not change.done()
            await registry.deregister(USER)
            assert await asyncio.wait_for(change, 10) == ()


# --- who may


@asynccontextmanager
async def guarded(etcdctl):
    """Run a server that wants passwords: `root` may all, `reader` may read."""
    async with etcd_server() as server:
        for command in (
            "user add root:s3cret-root",
            "user add reader:s3cret-reader",
            "user grant-role root root",
            "role add reads",
            "role grant-permission reads read --prefix=true /ketch",
            "user grant-role reader reads",
            "auth enable",
        ):
            etcdctl(server.url, *command.split())
        yield server


async def test_a_server_with_users(etcdctl, caplog):
    """Right and wrong passwords, rights, tokens that have become void; one server for all, for it takes time."""
    caplog.set_level(logging.DEBUG)
    async with guarded(etcdctl) as server:
        address = server.url.removeprefix("etcd://")
        root = f"etcd://root:s3cret-root@{address}?ttl=2&timeout=2"
        async with at(root) as registry, at(root) as client, aclosing(client.watch(USER.service)) as snapshots:
            assert "s3cret" not in registry.location + str(registry.__dict__)
            await registry.register(USER)
            await suite.until(snapshots, USER)

            # what was changed about users makes all tokens old
            etcdctl(server.url, *["user", "add", "another:pass"], options=["--user", "root:s3cret-root"])
            await registry.register(EMAIL)
            await suite.see(registry, None, USER, EMAIL)

            async with at(f"etcd://reader:s3cret-reader@{address}?timeout=2") as reader:
                await suite.see(reader, None, USER, EMAIL)
                with pytest.raises(RegistryError, match="role needs to read and write"):
                    await reader.register(EMAIL)

            # after a restart no token is known
            change = asyncio.ensure_future(anext(snapshots))
            await server.restart()
            await suite.calm(registry)
            await suite.calm(client)
            await registry.deregister(USER)
            assert await asyncio.wait_for(change, 10) == ()

        for wrong in ("root:s3cret-wrong@", "nobody:s3cret-wrong@"):
            with pytest.raises(RegistryError, match="check the user and the password") as refused:
                await at(f"etcd://{wrong}{address}").open()
            assert "s3cret" not in str(refused.value)
        with pytest.raises(RegistryError, match="it wants a user"):
            await at(f"etcd://{address}").open()
    assert "s3cret" not in caplog.text


async def test_a_user_is_no_obstacle_where_nobody_is_asked(etcd, prefix):
    async with at(etcd.url.replace("://", "://somebody:pass@") + f"?prefix={prefix}") as registry:
        await registry.register(USER)
        await suite.see(registry, None, USER)


async def test_over_tls_with_certificates_on_both_sides(etcdctl, tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours, theirs = ca.issue_cert("client"), ca.issue_cert("127.0.0.1")
    for name, cert in (("ours", ours), ("theirs", theirs)):
        cert.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        cert.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    options = (
        *("--cert-file", str(tmp_path / "theirs.pem"), "--key-file", str(tmp_path / "theirs.key")),
        *("--trusted-ca-file", str(tmp_path / "ca.pem"), "--client-cert-auth"),
    )
    async with etcd_server(tls=True, options=options) as server:
        query = f"tls_ca={tmp_path}/ca.pem&tls_cert={tmp_path}/ours.pem&tls_key={tmp_path}/ours.key"
        async with at(f"{server.url}?{query}") as registry:
            await registry.register(USER)
            await suite.see(registry, USER.service, USER)
        with pytest.raises(RegistryError, match="TLS"):
            await at(f"{server.url}?tls=on&timeout=1").open()  # the system's roots don't know it
        with pytest.raises(RegistryError, match="tls_ca"):
            await at(f"{server.url}?timeout=1").open()


# --- where


async def test_a_member_that_is_not_there_is_passed_over(etcd, prefix):
    address = etcd.url.removeprefix("etcd://")
    for order in ([f"127.0.0.1:{free_port()}", address], [address, f"127.0.0.1:{free_port()}"]):
        async with at(f"etcd://{','.join(order)}?prefix={prefix}") as registry:
            await registry.register(USER)
            await suite.see(registry, None, USER)


@pytest.mark.parametrize(
    "wrong",
    [
        "etcd://h:0",
        "etcd://h:1,,h:2",
        "etcd://h:1/path",
        "etcd://user@h:1",
        "etcd://h:1?prefix=/",
        "etcd://h:1?ttl=0",
        "etcd://h:1?timeout=soon",
        "etcd://h:1?format=xml",
        "etcd://h:1?tls=maybe",
        "etcd://h:1?tls_cert=/a.pem",
        "etcd://h:1?nonsense=1",
    ],
)
def test_a_wrong_url_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        at(wrong)


async def test_tls_files_that_are_not_there_are_told_of(etcd):
    with pytest.raises(ConfigurationError, match=r"etcd: tls_ca"):
        await at(f"{etcd.url}?tls_ca=/nowhere/ca.pem").open()
