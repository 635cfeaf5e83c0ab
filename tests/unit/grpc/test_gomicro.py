"""go-micro's manner of gRPC; the bytes are those that its module sent (v5.12.0, client/grpc and server/grpc)."""

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage

from ketch.errors import Aborted, Cancelled, Code, Internal, NotFound, StatusError, Unknown, status_error
from ketch.grpc import gomicro, status
from ketch.grpc.heads import RequestHead
from ketch.http2.compression import Headers

#: What its server sent for `errors.New("go.greeter", "no user 7 <&> é", code)`.
NOT_FOUND = (
    ("grpc-status", "5"),
    (
        "grpc-message",
        '{"id":"go.greeter","code":404,"detail":"no user 7 \\u003c\\u0026\\u003e %C3%A9","status":"Not Found"}',
    ),
    (
        "grpc-status-details-bin",
        (
            "CAUSXnsiaWQiOiJnby5ncmVldGVyIiwiY29kZSI6NDA0LCJkZXRhaWwiOiJubyB1c2VyIDcgXHUwMDNjXHUwMDI2XHUwMDNlIMOpIiwic3Rh"
            "dHVzIjoiTm90IEZvdW5kIn0aUAogdHlwZS5nb29nbGVhcGlzLmNvbS9lcnJvcnMuRXJyb3ISLAoKZ28uZ3JlZXRlchCUAxoQbm8gdXNlciA3"
            "IDwmPiDDqSIJTm90IEZvdW5k"
        ),
    ),
)
TOO_MANY = (
    ("grpc-status", "2"),
    (
        "grpc-status-details-bin",
        (
            "CAISZnsiaWQiOiJnby5ncmVldGVyIiwiY29kZSI6NDI5LCJkZXRhaWwiOiJubyB1c2VyIDcgXHUwMDNjXHUwMDI2XHUwMDNlIMOpIiwic3Rh"
            "dHVzIjoiVG9vIE1hbnkgUmVxdWVzdHMifRpYCiB0eXBlLmdvb2dsZWFwaXMuY29tL2Vycm9ycy5FcnJvchI0Cgpnby5ncmVldGVyEK0DGhBu"
            "byB1c2VyIDcgPCY+IMOpIhFUb28gTWFueSBSZXF1ZXN0cw"
        ),
    ),
)
#: The headers of its client's calls.
UNARY = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/ketch.greeter.Greeter/Hello"),
    (":authority", "127.0.0.1:35949"),
    ("content-type", "application/grpc+proto"),
    ("user-agent", "grpc-go/1.71.1"),
    ("te", "trailers"),
    ("grpc-timeout", "9997257u"),
    ("timeout", "9998593327"),
    ("x-content-type", "application/grpc+proto"),
)
FROM_GO = {"x-content-type": "application/grpc+proto"}
PATHS = ("/ketch.interop.v1.Greeter/Hello", "/a.v1.Users/Get", "/a.v2.Users/Get", "/Bare/Do")


def error_class():
    """Return `errors.Error` as protobuf's own library builds it from go-micro's errors.proto."""
    described = descriptor_pb2.FileDescriptorProto(name="errors.proto", package="errors", syntax="proto3")
    message = described.message_type.add(name="Error")
    text, number = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_INT32
    for at, (name, kind) in enumerate([("id", text), ("code", number), ("detail", text), ("status", text)], 1):
        message.field.add(name=name, number=at, type=kind, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("errors.Error"))


def test_its_error_is_ours_with_its_detail_as_the_message():
    error = status.read("5", NOT_FOUND)
    assert isinstance(error, NotFound)
    assert error.message == "no user 7 <&> é"
    assert b"go.greeter" in error.details[0]


def test_an_error_of_a_code_that_its_table_lacks_is_told_by_that_code():
    error = status.read("2", TOO_MANY)
    assert (error.code, error.message) == (Code.RESOURCE_EXHAUSTED, "no user 7 <&> é")


def test_an_error_without_details_is_read_from_its_json():
    error = status.read("5", NOT_FOUND[:2])
    assert (error.code, error.message) == (Code.NOT_FOUND, "no user 7 <&> é")


@pytest.mark.parametrize(
    "message",
    ["no user 7", "{}", '{"code":"7"}', '{"code":7,"else":1}', '{"detail":"x"}', '{"id"', '["id"]', '{"code":1e400}'],
)
def test_what_only_looks_like_its_error_stays_as_it_is(message):
    assert gomicro.heard(Code.ABORTED, message, ()) == (Code.ABORTED, message)


@pytest.mark.parametrize(
    "detail", [b"", b"\xff\xff", b"\x0a\x02ab", b"\x0a\x20type.googleapis.com/errors.Error\x12\x01\xff"]
)
def test_a_detail_that_is_no_error_of_its_is_left_alone(detail):
    assert gomicro.heard(Code.ABORTED, "as it was", (detail,)) == (Code.ABORTED, "as it was")


@pytest.mark.parametrize("code", [code for code in Code if code])
def test_our_error_is_read_by_its_own_types_and_comes_back_as_it_was(code):
    told = gomicro.told(status_error(code, 'no "user" 7 <&> é', details=[b"mine"]), "/a.Greeter/Hello", FROM_GO)
    packed = AnyMessage.FromString(told.details[0])
    assert packed.type_url == "type.googleapis.com/errors.Error"
    seen = error_class().FromString(packed.value)
    assert (seen.id, seen.detail) == ("a.Greeter", 'no "user" 7 <&> é')
    assert told.message.startswith(f'{{"id":"a.Greeter","code":{seen.code},')
    assert told.details[1:] == (b"mine",)
    back = status.read(str(int(code)), status.trailers(told))
    assert (back.code, back.message) == (code, 'no "user" 7 <&> é')


def test_an_error_that_is_too_long_is_shortened_before_its_json_is_cut_off():
    told = gomicro.told(Internal("\x00é" * 10_000), "/a.Greeter/Hello", FROM_GO)
    fields = dict(status.trailers(told))
    assert "grpc-status-details-bin" in fields
    assert status.unescape(fields["grpc-message"]) == told.message
    assert status.read("13", [("grpc-message", fields["grpc-message"])]).message.startswith("\x00é\x00é")


@pytest.mark.parametrize("error", [Cancelled("x"), Aborted("x", details=[b"mine"]), Unknown()])
def test_for_any_other_caller_an_error_is_as_it_was(error):
    assert gomicro.told(error, "/a.Greeter/Hello", {"user-agent": "grpc-go/1.71.1"}) is error


def test_its_client_names_a_method_by_the_services_name_in_the_registry():
    shorts = gomicro.short_paths(PATHS)
    assert gomicro.meant("/ketch.greeter.Greeter/Hello", FROM_GO, shorts) == "/ketch.interop.v1.Greeter/Hello"
    assert gomicro.meant("/Greeter/Hello", FROM_GO, shorts) == "/ketch.interop.v1.Greeter/Hello"
    assert gomicro.meant("/any.Bare/Do", FROM_GO, shorts) == "/Bare/Do"


@pytest.mark.parametrize(
    "path", ["/ketch.greeter.Users/Get", "/ketch.greeter.Greeter/Bye", "/a.Greeter/Hello/x", "", "/", "Greeter"]
)
def test_what_is_ambiguous_or_not_there_is_no_method(path):
    assert gomicro.meant(path, FROM_GO, gomicro.short_paths(PATHS)) == ""


def test_no_other_client_is_sent_to_a_method_that_it_did_not_name():
    assert gomicro.meant("/ketch.greeter.Greeter/Hello", {}, gomicro.short_paths(PATHS)) == ""


def test_its_timeout_counts_where_grpc_has_none():
    assert RequestHead(Headers(UNARY)).timeout == pytest.approx(9.997257)
    without = tuple(field for field in UNARY if field[0] != "grpc-timeout")
    assert RequestHead(Headers(without)).timeout == pytest.approx(9.998593327)


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "1e9", "²", "9" * 19])
def test_a_timeout_that_is_none_is_no_end(text):
    assert gomicro.timeout({**FROM_GO, "timeout": text}) is None


def test_a_timeout_of_any_other_caller_is_only_metadata():
    assert gomicro.timeout({"timeout": "9998593327"}) is None
    assert isinstance(gomicro.told(NotFound("x"), "/a/b", {"timeout": "1"}), StatusError)
