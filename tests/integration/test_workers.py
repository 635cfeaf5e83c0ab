"""Workers: several processes of a service share a port, are watched over and replaced, and nobody's call is lost."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from ketch import Client
from ketch.errors import ConfigurationError
from ketch.registries.local import LocalRegistry
from ketch.rpc import Method, Stub
from ketch.workers.console import ask_all, directory

pytestmark = [
    pytest.mark.xdist_group("workers"),
    pytest.mark.skipif(sys.platform == "win32", reason="workers need POSIX"),
]

PROGRAM = """
import asyncio, os, time
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from ketch import NotFound, Service
from ketch.rpc import Method, Servicer

class Who(Servicer):
    contract = "w.Who"
    methods = {{name: Method("w.Who", name.title(), Int64Value, StringValue) for name in ("ask", "block")}}

    async def ask(self, request):
        if request.value < 0:
            raise NotFound("nothing below 0")
        await asyncio.sleep(request.value / 1000)
        return StringValue(value=f"{{os.getpid()}} {code}")

    async def block(self, request):
        time.sleep(request.value)

service = Service("who")
service.serve(Who())

{more}
"""

LIFESPAN = """
@service.lifespan
async def resource():
    {does}
    yield
"""


_ASK = Method("w.Who", "Ask", Int64Value, StringValue)
_BLOCK = Method("w.Who", "Block", Int64Value, StringValue)


class Reply(NamedTuple):
    """Who answered, and of which code."""

    pid: int
    code: str

    @classmethod
    def read(cls, text):
        pid, _, code = text.partition(" ")
        return cls(int(pid), code)


class WhoStub(Stub):
    contract = "w.Who"

    async def ask(self, value=0):
        return Reply.read((await self._unary(_ASK, Int64Value(value=value), 15.0, None)).value)

    def block(self, seconds):
        return self._unary(_BLOCK, Int64Value(value=seconds), 15.0, None)


async def until(true):
    """Wait for what another process does; return what it was that came true."""
    async with asyncio.timeout(40):
        while not (found := true()):  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.05)
    return found


def answers(port):
    """Tell whether somebody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


class Run:
    """`ketch run`, and what it says."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runtime = folder / "run"
        self.runtime.mkdir(exist_ok=True)
        self.process = None

    def write(self, code="one", more=""):
        (self.folder / "program.py").write_text(PROGRAM.format(code=code, more=more))

    def start(self, *args):
        with (self.folder / "said").open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ketch", "run", "program:service", *args],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self.runtime), "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
        return self

    @property
    def said(self):
        return (self.folder / "said").read_text()

    @property
    def status(self):
        return next(iter(ask_all(str(self.runtime))), None)

    async def serving(self, count):
        """Wait until so many workers serve and no other is there; return the status."""

        def look():
            status = self.status
            return status if status and status.serving == count == len(status.workers) else None

        return await until(look)

    async def says(self, text):
        await until(lambda: text in self.said)

    @asynccontextmanager
    async def client(self):
        registry = LocalRegistry(runtime=self.runtime)
        async with Client.from_env(environ={}, registry=registry, broker="memory") as client:
            yield client.stub(WhoStub)

    def end(self, number=signal.SIGTERM):
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
        return self.process.returncode


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    if run.process is not None and run.process.poll() is None:
        run.process.terminate()
        run.process.wait(30)


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """Three workers that several tests look at; their folder has so long a name that no unix socket takes it."""
    run = Run(tmp_path_factory.mktemp("x" * 100))
    run.write()
    run.start("--workers", "3", "--metrics-address", ":0", "--server-id", "given")
    yield run
    assert run.end() == 0


@asynccontextmanager
async def plain(address):
    """A stock client with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        ask = channel.unary_unary("/w.Who/Ask", Int64Value.SerializeToString, StringValue.FromString)

        async def call(value=0):
            return Reply.read((await ask(Int64Value(value=value), timeout=15)).value)

        yield call


async def test_workers_share_a_port_among_plain_connections(trio):
    [address] = (await trio.serving(3)).addresses
    pids = set()
    for _ in range(16):
        async with plain(address) as call, plain(address) as other:
            pids |= {(await call()).pid, (await other()).pid}
        if len(pids) == 3:
            break
    assert pids == {line.pid for line in trio.status.workers}


async def test_a_ketch_client_balances_over_all_workers(trio):
    status = await trio.serving(3)
    assert len({line.address for line in status.workers} | set(status.addresses)) == 4
    async with trio.client() as who:
        answers = [await who.ask() for _ in range(12)]
    assert {answer.pid for answer in answers} == {line.pid for line in status.workers}


async def test_each_worker_is_an_instance_of_its_own_also_where_an_id_is_given(trio):
    await trio.serving(3)
    async with LocalRegistry(runtime=trio.runtime) as registry, aclosing(registry.watch("who")) as snapshots:
        found = await anext(snapshots)
    assert sorted(instance.id for instance in found) == ["who-given-1", "who-given-2", "who-given-3"]


async def get(run, request):
    """Return what the HTTP endpoint answers to a raw request."""
    await run.says("figures at")
    port = int(re.search(r"figures at http://127\.0\.0\.1:(\d+)/metrics", run.said)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_figures_and_health_are_served_for_prometheus_and_probes(trio):
    await trio.serving(3)
    assert (await get(trio, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 200 OK")
    ready = await get(trio, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ready.startswith("HTTP/1.1 200 OK")
    assert "3 of 3 workers serve" in ready
    figures = await get(trio, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert 'ketch_workers_serving{service="who"} 3\n' in figures
    lines = figures.partition("\r\n\r\n")[2].splitlines()
    assert all(re.fullmatch(r'# (HELP|TYPE) .*|\w+\{(\w+="[^"]*",?)+\} [\d.e+-]+', line) for line in lines)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405"),
        (b"GET /secret HTTP/1.1\r\n\r\n", "HTTP/1.1 404"),
        (b"\x16\x03\x01 nonsense \r\n\r\n", "HTTP/1.1 405"),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 20_000, ""),
    ],
    ids=["post", "unknown", "nonsense", "endless"],
)
async def test_other_requests_are_turned_away(trio, request_, answer):
    try:
        said = await get(trio, request_)
    except ConnectionResetError:
        said = ""
    assert said.startswith(answer)
    assert bool(said) == bool(answer)


async def test_nobody_else_may_ask(trio, tmp_path):
    await trio.serving(3)
    [path] = (trio.runtime / "ketch" / "workers").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    open_to_all = tmp_path / "ketch" / "workers"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigurationError, match="no other may write"):
        directory(str(tmp_path))


async def test_the_command_shows_workers_and_totals(trio):
    await trio.serving(3)
    shown = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "ketch", "workers"],
        env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(trio.runtime)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert [row[0] for row in rows[1:]] == ["WORKER", "1", "2", "3", "all"]
    assert "3 serving" in shown.stdout


async def test_totals_are_sums_over_all_workers_and_those_before_them(run):
    run.write()
    run.start("--workers", "2")
    await run.serving(2)
    async with run.client() as who:
        for _ in range(20):
            await who.ask()
        run.process.send_signal(signal.SIGHUP)
        await run.says("2 new worker(s) serve")
        await run.serving(2)
        for value in (0, 0, 0, -1):
            await asyncio.gather(who.ask(value), return_exceptions=True)

    def counted():
        ask = run.status.stats.methods[0]
        return ask if ask.calls >= 24 else None

    ask = await until(counted)
    assert (ask.method, ask.calls, ask.failures) == ("/w.Who/Ask", 24, {"NOT_FOUND": 1})
    assert sum(line.calls for line in run.status.workers) == 4


async def test_when_one_is_killed_the_others_answer_and_it_comes_back(run):
    run.write()
    run.start("--workers", "2", "--server-address", f"unix:{run.folder}/shared")
    status = await run.serving(2)
    victim = status.workers[0]
    os.kill(victim.pid, signal.SIGKILL)
    await run.says("worker 1 was killed by SIGKILL, starting it again")
    async with plain(f"unix:{run.folder}/shared") as call:
        assert (await call()).pid == status.workers[1].pid
    again = await run.serving(2)
    assert [line.restarts for line in again.workers] == [1, 0]
    assert sorted(path.name for path in run.folder.glob("shared*")) == ["shared", "shared.2", "shared.3"]
    assert run.end() == 0
    assert not list(run.folder.glob("shared*"))


class Load:
    """Clients of all kinds that call without a pause; any failure is raised at the end."""

    def __init__(self, run, address):
        self.codes = []
        self.going = True
        self._run = run
        self._address = address

    async def ketch(self):
        async with self._run.client() as who:
            while self.going:
                self.codes.append((await who.ask(2)).code)

    async def kept(self):
        async with plain(self._address) as call:
            while self.going:
                self.codes.append((await call(2)).code)

    async def fresh(self):
        while self.going:
            async with plain(self._address) as call:
                self.codes.append((await call(2)).code)

    @asynccontextmanager
    async def on(self):
        async with asyncio.TaskGroup() as group:
            for kind in (self.ketch, self.kept, self.fresh) * 2:
                group.create_task(kind())
            yield self
            self.going = False

    async def more(self, code, count=30):
        """Wait until that many more answers have come from some code."""
        enough = self.codes.count(code) + count
        await until(lambda: self.codes.count(code) >= enough)


async def test_a_reload_under_load_loses_no_call(run):
    run.write()
    run.start("--workers", "2")
    [address] = (await run.serving(2)).addresses
    async with Load(run, address).on() as load:
        await load.more("one")
        for code in ("second", "the third"):
            run.write(code)
            run.process.send_signal(signal.SIGHUP)
            await load.more(code)
            await run.serving(2)
        last = len(load.codes)
        await load.more("the third")
    assert set(load.codes[last:]) == {"the third"}
    assert run.status.reloads == 2


async def test_new_code_that_does_not_start_leaves_the_old_at_work(run):
    run.write()
    run.start("--workers", "2", "--reload")
    before = await run.serving(2)
    async with Load(run, before.addresses[0]).on() as load:
        run.write("broken", more="raise ValueError('no good')")
        await run.says("the new workers ended with exit code 2; the old ones go on")
        await load.more("one")
        assert "ended with exit code 2" in run.status.failed
        assert {line.pid for line in before.workers} == {line.pid for line in (await run.serving(2)).workers}
        run.write("mended")
        await load.more("mended")
    await until(lambda: not run.status.failed)
    assert "broken" not in load.codes


async def test_reloads_that_are_wanted_at_once_are_one_after_the_one_at_hand(run):
    run.write()
    run.start("--workers", "1")
    await run.serving(1)
    for _ in range(5):
        run.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.02)
    await run.says("1 new worker(s) serve")
    await until(lambda: run.said.count("starting new workers") == run.said.count("new worker(s) serve"))
    await run.serving(1)
    assert run.status.reloads <= 2


async def test_workers_that_crash_are_started_less_and_less_often(run):
    run.write(more=LIFESPAN.format(does="asyncio.get_running_loop().call_later(0.2, os._exit, 3)"))
    run.start("--workers", "1")
    await run.says("worker 1 ended with exit code 3, starting it again in 0.5 s")
    await run.says("worker 1 ended with exit code 3, starting it again in 1 s")
    await run.says("worker 1 ended with exit code 3, starting it again in 2 s")
    [line] = run.status.workers
    assert (line.state, line.restarts) == ("waiting", 3)
    [address] = run.status.addresses
    assert not await asyncio.to_thread(answers, int(address.rpartition(":")[2]))
    assert run.end() == 0


async def test_one_that_hangs_is_killed_after_it_said_where_and_others_answer_meanwhile(run):
    run.write()
    run.start("--workers", "2", "--hang-timeout", "2")
    status = await run.serving(2)
    async with run.client() as who:
        blocked = asyncio.ensure_future(who.block(60))
        async with plain(status.addresses[0]) as call:
            await until(lambda: "hanging" in {line.state for line in run.status.workers})
            hanging = next(line.pid for line in run.status.workers if line.state == "hanging")
            assert (await call()).pid != hanging
        await run.says("was killed by SIGABRT")
        await asyncio.gather(blocked, return_exceptions=True)
    assert re.search(r'File ".*program.py", line \d+ in block', run.said)
    assert {line.pid for line in (await run.serving(2)).workers} != {line.pid for line in status.workers}


async def test_one_that_does_not_become_ready_is_killed_and_no_caller_is_kept_waiting(run):
    run.write(more=LIFESPAN.format(does="await asyncio.sleep(60)"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    run.start(
        "--workers", "1", "--start-timeout", "1.5", "--server-address", f"127.0.0.1:{port}", "--metrics-address", ":0"
    )
    await until(lambda: run.status)
    ready = await get(run, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert ready.startswith("HTTP/1.1 503")
    assert "worker 1: starting" in ready
    assert not answers(port)
    await run.says("worker 1 is not ready after 1.5 s, killing it")
    await run.says("starting it again")


async def test_the_port_is_free_again_when_the_supervisor_was_killed(run):
    run.write()
    run.start("--workers", "2")
    status = await run.serving(2)
    port = int(status.addresses[0].rpartition(":")[2])
    run.end(signal.SIGKILL)

    def gone():
        return not any(Path("/proc", str(line.pid)).exists() for line in status.workers)

    await until(gone)
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert run.status is None


async def test_a_pinned_address_is_shared_too(run):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    run.write(more=f'service = Service("who", address="127.0.0.1:{port}"); service.serve(Who())')
    run.start("--workers", "2")
    assert (await run.serving(2)).addresses == [f"127.0.0.1:{port}"]


async def test_where_an_address_is_advertised_only_the_shared_port_is_listened_on(run):
    run.write()
    run.start("--workers", "2", "--server-advertise", "127.0.0.1:1")
    status = await run.serving(2)
    assert {line.address for line in status.workers} == {"127.0.0.1:1"}
    async with plain(status.addresses[0]) as call:
        assert (await call()).pid in {line.pid for line in status.workers}
