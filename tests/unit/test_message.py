"""Messages: CloudEvents attributes as headers, ids, times, and metadata that can't forge them."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from ketch import message
from ketch.errors import ConfigurationError
from ketch.message import Message, event_headers, own_metadata, stamp


def test_an_event_carries_the_attributes_that_cloudevents_requires():
    headers = stamp(event_headers(source="srv", type="shop.v1.Order", content_type="application/protobuf"))
    event = Message("order.placed", headers, b"")
    assert headers["ce-specversion"] == "1.0"
    assert (event.source, event.type, event.content_type) == ("srv", "shop.v1.Order", "application/protobuf")
    assert event.id
    assert event.time


def test_each_stamp_is_another_event_and_leaves_the_shared_headers_alone():
    shared = event_headers(source="s", type="t", content_type="c")
    first, second = stamp(shared), stamp(shared)
    assert first["ce-id"] != second["ce-id"]
    assert "ce-id" not in shared


def test_a_message_of_a_plain_client_has_empty_attributes():
    event = Message("topic", {}, b"body")
    assert (event.id, event.type, event.source, event.time, event.content_type) == ("",) * 5
    assert event.metadata == {}


def test_metadata_is_what_is_neither_attribute_nor_content_type():
    headers = {**stamp(event_headers(source="s", type="t", content_type="c")), "x-request-id": "7", "cell": "c1"}
    assert Message("topic", headers, b"").metadata == {"x-request-id": "7", "cell": "c1"}


def test_repr_shows_neither_headers_nor_body():
    text = repr(Message("topic", {"ce-id": "7", "authorization": "s3cret"}, b"s3cret"))
    assert text == "<Message 7 on topic, 6 bytes>"


def test_metadata_names_become_lower_case():
    assert dict(own_metadata({"X-Request_Id.1": "value with spaces, größe 🐍", "empty": ""})) == {
        "x-request_id.1": "value with spaces, größe 🐍",
        "empty": "",
    }


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ce-id",
        "CE-Type",
        "ce-",
        "content-type",
        "Content-Type",
        "a b",
        "a:b",
        "größe",
        "a\r\nb",
        ":path",
        "a/b",
        "-",
    ],
)
def test_a_reserved_or_unfit_metadata_name_is_refused(name):
    with pytest.raises(ConfigurationError):
        dict(own_metadata({name: "value"}))


@pytest.mark.parametrize("value", ["a\r\nb", "a\nce-id: 1", "\x00", "\t", "\x7f", "\x1b[0m"])
def test_a_metadata_value_with_a_control_character_is_refused_and_not_repeated(value):
    with pytest.raises(ConfigurationError) as caught:
        dict(own_metadata({"name": value}))
    assert value not in str(caught.value)


def test_ids_are_unique_and_fit_for_a_header():
    ids = [message.new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{24}", text) for text in ids)


def test_ids_are_unique_across_forks():
    code = """if True:
        import json, os, sys
        from ketch import message
        ids = [message.new_id()]
        for _ in range(3):
            read, write = os.pipe()
            if not os.fork():
                os.write(write, json.dumps([message.new_id() for _ in range(3)]).encode())
                os._exit(0)
            ids += json.loads(os.read(read, 65536)) + [message.new_id()]
        print(json.dumps(ids))
    """
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    ids = json.loads(done.stdout)
    assert len(ids) == len(set(ids)) == 13


def test_the_time_is_rfc_3339_in_utc_with_milliseconds():
    before, text, after = datetime.now(UTC), message.now(), datetime.now(UTC)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert (
        int(before.timestamp() * 1000) - 1
        <= datetime.fromisoformat(text).timestamp() * 1000
        <= after.timestamp() * 1000
    )


def test_the_time_follows_the_clock_over_seconds_and_back(monkeypatch):
    clock = iter([1700000000_250, 1700000000_750, 1700000001_500, 1700000000_500])
    monkeypatch.setattr(message.time, "time_ns", lambda: next(clock) * 1_000_000)
    assert [message.now() for _ in range(4)] == [
        "2023-11-14T22:13:20.250Z",
        "2023-11-14T22:13:20.750Z",
        "2023-11-14T22:13:21.500Z",
        "2023-11-14T22:13:20.500Z",
    ]
