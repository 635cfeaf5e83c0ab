"""What header fields say: timeouts, content types, metadata, statuses."""

import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import Internal, NotFound, Unknown
from ketch.grpc import content, metadata, status, timeouts


@given(seconds=st.floats(1e-9, 1e9))
def test_a_timeout_is_never_shortened_and_hardly_lengthened(seconds):
    text = timeouts.render(seconds)
    assert len(text) <= 9
    assert seconds * 0.999999 <= timeouts.parse(text) <= seconds * 1.0101 + 1.01e-6 or seconds > 3.6e8


@pytest.mark.parametrize(("text", "seconds"), [("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("0n", 0)])
def test_every_unit_is_understood(text, seconds):
    assert timeouts.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "٣S", "1 S"])
def test_what_is_no_timeout_is_refused(text):
    with pytest.raises(ValueError, match="grpc-timeout"):
        timeouts.parse(text)


@pytest.mark.parametrize("media", ["application/protobuf", "application/json", "application/x-thing"])
def test_content_types_cross(media):
    assert content.from_wire(content.to_wire(media)) == media


@pytest.mark.parametrize(
    ("wire", "media"),
    [
        ("application/grpc", "application/protobuf"),
        ("application/grpc+proto", "application/protobuf"),
        ("Application/gRPC+JSON; charset=utf-8", "application/json"),
        ("application/grpc-web", ""),
        ("application/json", ""),
        ("", ""),
    ],
)
def test_content_types_are_read_as_the_specification_says(wire, media):
    assert content.from_wire(wire) == media


@given(message=st.text(max_size=500))
def test_a_status_message_crosses_whatever_it_says(message):
    escaped = status.escape(message)
    assert all(" " <= character <= "~" for character in escaped)
    assert status.unescape(escaped) == message.encode("utf-8", "replace").decode()


def test_a_broken_escape_is_left_as_it_is():
    assert status.unescape("100% %zz %e2%82%ac %") == "100% %zz € %"


@given(message=st.text(st.characters(codec="utf-8"), max_size=50), details=st.lists(st.binary(max_size=50), max_size=4))
def test_a_status_is_googles(message, details):
    packed = [any_pb2.Any(type_url="t/x", value=value).SerializeToString() for value in details]
    raw = status.pack(NotFound(message, details=packed))
    theirs = status_pb2.Status.FromString(raw)
    assert (theirs.code, theirs.message) == (5, message)
    assert [detail.value for detail in theirs.details] == details
    assert status.unpack(theirs.SerializeToString()) == tuple(packed)


@given(raw=st.binary(max_size=60))
def test_details_that_are_broken_are_left_out(raw):
    try:
        details = status.unpack(raw)
    except ValueError:
        details = ()
    assert all(isinstance(detail, bytes) for detail in details)


@pytest.mark.parametrize("code", ["", "x", "-1", "17", "99999", "٣"])
def test_a_code_that_grpc_doesnt_know_is_unknown(code):
    assert type(status.read(code, [("grpc-status", code)])) is Unknown


def test_a_message_that_would_not_fit_into_headers_is_cut():
    fields = status.trailers(NotFound("ü" * 100_000, details=[bytes(100_000)]))
    assert sum(len(name) + len(value) for name, value in fields) < 10_000


def test_what_belongs_to_the_protocol_is_no_metadata():
    fields = [(":path", "/"), ("te", "trailers"), ("grpc-timeout", "1S"), ("content-type", "x"), ("a", "1"), ("a", "2")]
    assert dict(metadata.collect(fields)) == {"a": "1,2"}


@pytest.mark.parametrize("name", ["grpc-status", "te", ":path", "content-type", "Upper", "with space", ""])
def test_metadata_of_a_name_that_isnt_the_applications_is_refused(name):
    with pytest.raises(Internal):
        metadata.fields({name: "x"})
