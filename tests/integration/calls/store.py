"""A store with one answer to everything, served by as many instances as a test wants."""

import asyncio
import contextlib

from ketch.errors import Unavailable
from ketch.registry import Instance
from ketch.rpc import Cardinality, Method, Stub
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

GET = Method("a.Store", "Get", str, str, idempotent=True)
PUT = Method("a.Store", "Put", str, str)
LIST = Method("a.Store", "List", str, str, Cardinality.SERVER_STREAM, idempotent=True)


class StoreStub(Stub):
    contract = "a.Store"

    def get(self, text, timeout=5.0, metadata=None):
        return self._unary(GET, text, timeout, metadata)

    def put(self, text, timeout=5.0, metadata=None):
        return self._unary(PUT, text, timeout, metadata)

    def list(self, text, timeout=5.0):
        return self._server_stream(LIST, text, timeout, None)


class Server:
    """An instance whose answers are a test's to decide: `answer` replies, raises, or waits."""

    def __init__(self, name):
        self.name = name
        self.seen = []
        self.cancelled = asyncio.Event()
        self.answer = self.echo
        self.listener = None
        self.instance = None

    async def start(self, registry, **fields):
        routes = {path: Route(unary=self.serve) for path in ("/a.Store/Get", "/a.Store/Put")}
        self.listener = await GrpcTransport().listen("127.0.0.1:0", routes)
        self.instance = Instance("store", self.name, self.listener.address, contracts=("a.Store",), **fields)
        await registry.register(self.instance)
        return self

    async def serve(self, request):
        self.seen.append(request.body)
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def echo(self, request):
        request.trailers["from"] = self.name
        return b'"%s"' % self.name.encode()

    async def hang(self, request):
        await asyncio.Event().wait()

    def fail(self, error):
        async def fail(request):
            raise error

        self.answer = fail


async def stub_of(client, servers):
    """Return a stub, once all servers are known."""
    stub = client.stub(StoreStub, "store")
    with contextlib.suppress(Unavailable):
        await client.ready("store", 5)
    async with asyncio.timeout(5):
        while len(client.candidates("store")) < len(servers):  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    return stub
