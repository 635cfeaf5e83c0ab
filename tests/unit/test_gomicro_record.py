"""go-micro's records; the bytes are those that its module wrote (v5.12.0, `json.Marshal` of `registry.Service`)."""

import json

import pytest

from ketch.errors import RegistryError
from ketch.registries.gomicro import decode, encode, instances, service
from ketch.registry import Instance

GREETER = (
    b'{"name":"greeter","version":"latest","metadata":{"a":"b"},"endpoints":[{"request":{"name":"Req","type":"Req",'
    b'"values":[{"name":"name","type":"string","values":null}]},"response":{"name":"Rsp","type":"Rsp","values":null},'
    b'"metadata":{"stream":"true"},"name":"Greeter.Hello"}],"nodes":[{"metadata":{"protocol":"grpc"},"id":"greeter-1",'
    b'"address":"127.0.0.1:1"}]}'
)
BARE = b'{"name":"x","version":"","metadata":null,"endpoints":null,"nodes":null}'

OURS = Instance("shop", "shop-1", "127.0.0.1:5001", "1.2.0", ("shop.v1.Orders", "shop.v1.Carts"), {"zone": "a"})


def test_what_go_micro_wrote_is_read():
    assert instances(decode(GREETER)) == [
        Instance("greeter", "greeter-1", "127.0.0.1:1", "latest", (), {"protocol": "grpc"})
    ]
    assert instances(decode(BARE)) == []


def test_what_we_write_is_read_as_it_was_with_what_its_clients_go_by():
    (seen,) = instances(decode(encode(service(OURS, "etcd"))))
    speaks = {"protocol": "grpc", "server": "grpc", "transport": "grpc", "registry": "etcd"}
    assert seen == Instance("shop", "shop-1", "127.0.0.1:5001", "1.2.0", OURS.contracts, {**speaks, "zone": "a"})


def test_what_we_write_has_the_names_that_go_reads():
    written = json.loads(encode(service(OURS, "etcd")))
    assert set(written) == {"name", "version", "metadata", "endpoints", "nodes"}
    assert set(written["nodes"][0]) == {"id", "address", "metadata"}


def test_an_instances_own_labels_stand_over_the_usual_ones():
    record = service(Instance("a", "b", "c:1", metadata={"transport": "nats"}), "nats")
    assert record.nodes[0].metadata["transport"] == "nats"


def test_a_node_that_cannot_be_called_is_passed_over():
    record = decode(b'{"name":"x","nodes":[{"id":"","address":"h:1"},{"id":"a"},{"id":"b","address":"h:2"}]}')
    assert [one.id for one in instances(record)] == ["b"]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b'{"name":5}', b'{"name":"x","nodes":{}}', b"\xff", b'{"nodes":[]}'],
)
def test_garbage_is_refused(data):
    with pytest.raises(RegistryError):
        instances(decode(data))


def test_a_record_that_nests_without_end_is_refused():
    data = b'{"name":"x","endpoints":[{"request":' + b'{"values":[' * 100_000 + b"]}" * 100_000 + b"}]}"
    with pytest.raises(RegistryError):
        decode(data)


def test_more_than_can_be_meant_is_refused():
    with pytest.raises(RegistryError, match="more than"):
        instances(decode(b'{"name":"x","nodes":[' + b",".join([b"{}"] * 10_001) + b"]}"))
    with pytest.raises(RegistryError, match="bytes"):
        decode(b" " * (5 << 20))
    with pytest.raises(RegistryError, match="shorten"):
        encode(service(Instance("a", "b", "c:1", metadata={"x": "y" * (1 << 20)}), "etcd"))


@pytest.mark.parametrize("wrong", [Instance("", "b", "c:1"), Instance("a", "", "c:1"), Instance("a", "b", "")])
def test_what_nobody_could_call_is_not_written(wrong):
    with pytest.raises(RegistryError, match="needs a service"):
        service(wrong, "etcd")
