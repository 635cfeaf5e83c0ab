"""A connection without sockets, and what it tells its owner."""

import pytest

from ketch.http2 import frames
from ketch.http2.connection import Connection
from ketch.http2.limits import CLIENT_FRAME, Limits
from ketch.http2.stream import Stream


class Recorder(Stream):
    """A stream that keeps what it heard."""

    def __init__(self, connection, stream_id, log):
        super().__init__(connection, stream_id)
        self.log = log
        self.body = bytearray()
        self.trailers = None
        self.ended = False
        self.reset = None

    def on_headers(self, headers, *, end):
        self.log.append((self.id, "headers", headers.fields, end))
        self.ended = end

    def on_data(self, payload, *, end):
        self.log.append((self.id, "data", payload, end))
        self.body += payload
        self.ended = end

    def on_reset(self, code, reason, *, refused):
        self.log.append((self.id, "reset", code, refused))
        self.reset = (code, refused)

    def on_drained(self):
        self.log.append((self.id, "drained"))


class Side:
    """One side of a connection: owns it, keeps what it is told."""

    def __init__(self, *, client=False, limits=None, clock=None):
        self.log = []
        self.errors = []
        self.pongs = []
        self.goaways = []
        self.streams = {}
        self.now = 0.0
        self.connection = Connection(
            self, client=client, limits=limits or Limits(max_frame=CLIENT_FRAME), clock=clock or (lambda: self.now)
        )

    def wake(self):
        pass

    def flush(self):
        pass

    def on_stream(self, stream_id, headers):
        stream = self.streams[stream_id] = Recorder(self.connection, stream_id, self.log)
        return stream

    def on_settings(self):
        pass

    def on_pong(self, payload):
        self.pongs.append(payload)

    def on_goaway(self, code, reason):
        self.goaways.append((code, reason))

    def on_ended_stream(self):
        pass

    def on_end(self, error):
        self.errors.append(error)

    # what tests do

    def take(self):
        """Return the frames that go out: (type, flags, stream id, payload)."""
        data = self.connection.sender.take()
        self.connection.sender.taken(paused=False)
        return split(data)

    def open(self):
        stream = Recorder(self.connection, 0, self.log)
        self.connection.attach(stream)
        return stream

    def start(self):
        """Exchange the first frames with a peer that says nothing special."""
        hello = frames.settings([])
        self.connection.receive(hello if self.connection.client else frames.PREFACE + hello)
        self.take()
        return self

    @property
    def error(self):
        """The code of the GOAWAY that ended the connection, None while it goes on."""
        return self.errors[0].code if self.errors else None


def split(data):
    data = data.removeprefix(frames.PREFACE)
    out = []
    while data:
        high, low, kind, flags, stream_id = frames.HEAD.unpack_from(data)
        size = (high << 16) + low
        out.append((kind, flags, stream_id, data[9 : 9 + size]))
        data = data[9 + size :]
    return out


@pytest.fixture
def server():
    return Side().start()


@pytest.fixture
def client():
    return Side(client=True).start()


@pytest.fixture(scope="module")
def make_side():
    return Side


@pytest.fixture(scope="module")
def split_frames():
    return split
