"""The same servicer on grpc.aio and on ketch, the same stub over either's channel: the same answers."""

# ruff: noqa: N802 - methods are called as their rpcs are

import asyncio
import json

import grpc.aio
import pytest
from google.protobuf import any_pb2, wrappers_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

LARGE = "x" * 2_000_000


def rich():
    detail = any_pb2.Any()
    detail.Pack(wrappers_pb2.StringValue(value="why"))
    return rpc_status.to_status(status_pb2.Status(code=9, message="rich", details=[detail]))


class Chosen:
    """What it does is chosen by the request."""

    async def Say(self, request, context):
        return await getattr(self, request.text.partition(" ")[0])(request, context)

    async def echo(self, request, context):
        return self.text(text=request.text)

    async def tell(self, request, context):
        known = {
            "metadata": sorted(
                (key, value if isinstance(value, str) else value.hex())
                for key, value in context.invocation_metadata()
                if key.startswith("x-")
            ),
            "keys": [pair.key for pair in context.invocation_metadata() if pair.key.startswith("x-")],
            "peer": context.peer().partition(":")[0],
            "code": context.code(),
            "details": context.details(),
            "trailing": list(context.trailing_metadata()),
            "done": context.done(),
            "cancelled": context.cancelled(),
            "identities": context.peer_identities(),
            "limited": context.time_remaining() is not None,
        }
        return self.text(text=json.dumps(known))

    async def metadata(self, request, context):
        await context.send_initial_metadata((("x-initial", "1"), ("x-initial-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing", "2"), ("x-twice-bin", b"a"), ("x-twice-bin", b"b")))
        return self.text(text="with metadata")

    async def twice(self, request, context):
        await context.send_initial_metadata((("x-initial", "1"),))
        try:
            await context.send_initial_metadata((("x-initial", "2"),))
        except grpc.aio.UsageError:
            return self.text(text="only once")

    async def abort(self, request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "nö\n100%", (("x-hint", "h"), ("x-hint-bin", b"\x01")))

    async def abort_barely(self, request, context):
        context.set_details("said before")
        context.set_trailing_metadata((("x-before", "b"),))
        await context.abort(grpc.StatusCode.ABORTED)

    async def abort_richly(self, request, context):
        await context.abort_with_status(rich())

    async def abort_after_metadata(self, request, context):
        await context.send_initial_metadata((("x-initial", "1"),))
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")

    async def abort_suppressed(self, request, context):
        try:
            await context.abort(grpc.StatusCode.DATA_LOSS, "gone")
        except grpc.aio.AbortError:
            return self.text(text="all is well")

    async def status(self, request, context):
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        context.set_details("not yet")
        context.set_trailing_metadata((("x-trailing", "t"),))
        return self.text(text="is dropped")

    async def fail(self, request, context):
        context.set_trailing_metadata((("x-trailing", "t"),))
        raise ValueError("inside")

    async def fail_with_code(self, request, context):
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        raise ValueError("inside")

    async def hang(self, request, context):
        await asyncio.Event().wait()

    async def gzip(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return self.text(text=LARGE)

    async def Count(self, request, context):
        if request.text == "nothing":
            return
        await context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailing", "t"),))
        for number in range(3):
            yield self.text(text=f"{request.text} {number}")
        if request.text == "abort":
            await context.abort(grpc.StatusCode.CANCELLED, "enough")
        if request.text == "fail":
            raise ValueError("inside")
        if request.text == "status":
            context.set_code(grpc.StatusCode.ALREADY_EXISTS)
            context.set_details("again")

    async def Join(self, request_iterator, context):
        parts = []
        async for request in request_iterator:
            if request.text == "enough":
                return self.text(text="early")
            if request.text == "abort":
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
            parts.append(request.text)
        return self.text(text="+".join(parts))

    async def Chat(self, request_iterator, context):
        while (request := await context.read()) is not grpc.aio.EOF:
            if request.text == "abort":
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no", (("x-hint", "h"),))
            if request.text == "enough":
                return
            await context.write(self.text(text=request.text.upper()))
            await context.write(self.text(text=request.text.lower()))


class Blocking:
    """Plain functions and generators."""

    def Say(self, request, context):
        if request.text == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "blocked")
        if request.text == "status":
            context.set_code(grpc.StatusCode.NOT_FOUND)
            context.set_details("set")
            return self.text()
        if request.text == "fail":
            raise ValueError("inside")
        context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailing", "t"),))
        return self.text(text=f"{request.text} {dict(context.invocation_metadata()).get('x-a')}")

    def Count(self, request, context):
        for number in range(3):
            yield self.text(text=f"{request.text} {number}")
        if request.text == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "blocked")

    def Join(self, request_iterator, context):
        return self.text(text="+".join(request.text for request in request_iterator))

    def Chat(self, request_iterator, context):
        for request in request_iterator:
            yield self.text(text=request.text.upper())


def make(generated):
    """Return a servicer for each way to write one."""
    stock = generated.grpc.EchoServicer
    members = {"text": generated.pb2.Text}
    return {
        "async": type("Echo", (Chosen, stock), members)(),
        "blocking": type("Echo", (Blocking, stock), members)(),
        "bare": stock(),
    }


SAY = ["echo", "echo nö", f"echo {LARGE}", "tell", "metadata", "twice", "abort", "abort_barely", "abort_richly"]
SAY += ["abort_after_metadata", "abort_suppressed", "status", "fail", "fail_with_code", "gzip"]
CALLS = [("Say", said, {}) for said in SAY]
CALLS += [
    ("Say", "tell", {"metadata": (("x-a", "1"), ("x-b-bin", b"\x00"), ("x-b-bin", b"\xff\xfe")), "timeout": 30}),
    ("Say", "tell", {"metadata": grpc.aio.Metadata(("x-a", "1"))}),
    ("Say", "hang", {"timeout": 0.2}),
    ("Say", "echo", {"wait_for_ready": True, "compression": grpc.Compression.Gzip}),
    ("Say", "echo " + "x" * 5_000_000, {}),
    *[("Count", said, {}) for said in ("plain", "nothing", "abort", "fail", "status")],
    *[("Join", said, {}) for said in (["a", "b"], [], ["a", "enough"], ["abort"], [LARGE, LARGE])],
    *[("Chat", said, {}) for said in (["a", "b"], [], ["a", "abort"], ["a", "enough"], [LARGE])],
]
BLOCKING = [("Say", said, {"metadata": (("x-a", "1"),)}) for said in ("echo", "abort", "status", "fail")]
BLOCKING += [("Count", "a", {}), ("Join", ["a", "b"], {}), ("Join", [], {})]
BLOCKING += [("Chat", ["a", "b"], {}), ("Chat", [], {})]
# Nothing is sent to the streams: grpcio's call now and then says INTERNAL when it writes after the server's answer.
BARE = [("Say", "a", {}), ("Count", "a", {}), ("Join", [], {}), ("Chat", [], {})]

#: The words for these are each side's own; the code and everything else must agree.
OWN_WORDS = {"fail", "fail_with_code", "hang"}


async def observe(call, stub, text):
    """Make a call and return all that its caller sees."""
    name, said, options = call
    many = isinstance(said, list)
    given = (text(text=one) for one in said) if many else text(text=said)
    seen = {"replies": []}
    made = getattr(stub, name)(given, **options)
    try:
        if name in ("Say", "Join"):
            seen["replies"].append((await made).text)
        else:
            async for reply in made:
                seen["replies"].append(reply.text)
    except grpc.RpcError as error:
        seen["error"] = error.code(), error.details(), told(error.initial_metadata()), told(error.trailing_metadata())
    seen["call"] = await made.code(), await made.details() or "", told(await made.initial_metadata())
    seen["trailing"] = told(await made.trailing_metadata())
    seen["state"] = made.done(), made.cancelled(), (made.time_remaining() is None)
    status = await rpc_status.aio.from_call(made) if hasattr(rpc_status, "aio") else None
    seen["details"] = status and [bytes(one.value) for one in status.details]
    return seen


def told(metadata):
    return sorted(metadata or ())


def without_words(seen):
    """Return what was seen but for the message of the status."""
    error = seen.get("error")
    return {**seen, "error": error and (error[0], *error[2:]), "call": (seen["call"][0], seen["call"][2])}


async def observe_all(serve, connect, add, calls, generated):
    async with serve(add) as address, connect(address) as channel:
        stub = generated.grpc.EchoStub(channel)
        return [await observe(call, stub, generated.pb2.Text) for call in calls]


@pytest.mark.parametrize("which", ["async", "blocking", "bare"])
@pytest.mark.parametrize(
    ("server", "client"), [("ketch", "stock"), ("stock", "ketch"), ("ketch", "ketch")], ids=["hosted", "called", "both"]
)
async def test_the_answers_are_the_same(generated, sides, which, server, client):
    serve, connect = sides
    servicer, calls = make(generated)[which], {"async": CALLS, "blocking": BLOCKING, "bare": BARE}[which]

    def add(server):
        generated.grpc.add_EchoServicer_to_server(servicer, server)

    expected = await observe_all(serve["stock"], connect["stock"], add, calls, generated)
    actual = await observe_all(serve[server], connect[client], add, calls, generated)
    differing = []
    for call, theirs, ours in zip(calls, expected, actual, strict=True):
        said = call[1] if isinstance(call[1], str) else ""
        own = which == "bare" or said in OWN_WORDS or len(said) > 4_000_000
        left, right = (without_words(theirs), without_words(ours)) if own else (theirs, ours)
        if left != right:
            differing.append((str(call)[:100], {name: (left[name], right.get(name)) for name in left}))
    assert differing == []
