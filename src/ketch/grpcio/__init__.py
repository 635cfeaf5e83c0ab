"""ketch and grpcio (grpc.aio) in one program, so that a team moves over one service at a time.

    grpcio.server(service)               hosts servicers written for grpc.aio, through their add_…_to_server functions
    grpcio.channel(client, service="…")  backs generated stubs, as grpc.aio.insecure_channel does

    metadata.py status.py codec.py       what crosses between the two
    server.py hosted.py interceptors.py  hosting: registration, and handlers as ketch calls them
    context.py replies.py threads.py     what a handler is given; handlers that write, and those that block
    channel.py callables.py target.py    calling: the channel, its methods, where it goes
    call.py unary.py streaming.py        one call
    connectivity.py                      a channel's state

It needs the extra `ketch[grpcio]`; nothing else in ketch imports grpcio.
"""

try:
    import grpc.aio  # noqa: F401 - whether it is there
except ImportError as missing:
    raise ImportError("ketch.grpcio needs grpcio: pip install 'ketch[grpcio]'") from missing

from .channel import channel
from .server import server

__all__ = ["channel", "server"]
