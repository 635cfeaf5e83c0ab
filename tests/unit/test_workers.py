"""What supervisors and workers say, to each other and to others."""

import asyncio
import re
import socket

import pytest

from ketch.errors import AddressUnavailable
from ketch.stats import MethodStats, Stats, TopicStats
from ketch.workers.link import Link, Supervised
from ketch.workers.process import how_it_ended
from ketch.workers.prometheus import text
from ketch.workers.reports import MAX_REPORT, Line, Report, Status, Wish
from ketch.workers.sockets import Sockets
from ketch.workers.tally import Tally


@pytest.fixture
def ends():
    """Both ends of a link."""
    ours, theirs = socket.socketpair()
    link, supervised = Link(ours), Supervised(theirs.detach())
    yield link, supervised
    link.close()
    supervised._socket.close()


async def test_what_a_worker_reports_arrives_as_it_is(ends):
    link, supervised = ends
    report = Report(ready=True, trouble="", stats=Stats([MethodStats("/a.A/B", 2, failures={"UNKNOWN": 1})]))
    await supervised.report(report)
    assert await anext(link.read()) == report


async def test_a_worker_gets_the_socket_that_it_wishes_for_and_others_get_the_same(ends):
    link, supervised = ends
    sockets = Sockets()
    for _ in range(2):
        wishing = asyncio.create_task(asyncio.to_thread(supervised.wish, "127.0.0.1:0"))
        assert await anext(link.read()) == Wish("127.0.0.1:0")
        link.grant(*sockets.get("127.0.0.1:0"))
        address, got = await wishing
        with got:
            assert [address] == sockets.addresses == [f"127.0.0.1:{got.getsockname()[1]}"]
    sockets.close()


async def test_a_worker_hears_why_there_is_no_socket(ends):
    link, supervised = ends
    wishing = asyncio.create_task(asyncio.to_thread(supervised.wish, "192.0.2.1:1"))
    await anext(link.read())
    with pytest.raises(AddressUnavailable) as error:
        Sockets().get("192.0.2.1:1")
    link.refuse(str(error.value))
    with pytest.raises(AddressUnavailable, match=r"can't listen on 192\.0\.2\.1:1"):
        await wishing


@pytest.mark.parametrize(
    "said", [b"nonsense\n", b'{"type":"other"}\n', b"x" * (MAX_REPORT + 1)], ids=["no json", "no report", "endless"]
)
async def test_a_link_ends_when_what_comes_is_no_report(ends, said):
    link, supervised = ends
    supervised._socket.settimeout(0)
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(supervised._socket, said))
    assert [heard async for heard in link.read()] == []
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_each_end_hears_that_the_other_has_gone(ends):
    link, supervised = ends
    link._socket.shutdown(socket.SHUT_RDWR)
    await supervised.wait()
    assert [heard async for heard in link.read()] == []


def test_a_total_never_falls_when_a_worker_goes():
    tally, gone, living = Tally(), Stats([MethodStats("/a.A/B", 3, running=2)]), Stats([MethodStats("/a.A/B", 4)])
    assert tally.total([gone, living]).methods == [MethodStats("/a.A/B", 7, running=2)]
    tally.bury(gone, 1.5)
    assert tally.total([living]).methods == [MethodStats("/a.A/B", 7)]
    assert gone.methods[0].running == 2


def test_figures_name_each_series_once_also_while_workers_are_replaced():
    old, new, leaving = Line(1, 10, "serving"), Line(1, 20, "starting"), Line(2, 30, "stopping")
    stats = Stats(
        [MethodStats("/a.A/B", 5, 1, 0.5, {"NOT_FOUND": 2})], [TopicStats("t", None, 'odd "name"\\\n', 7, 1, 1, 0, 2)]
    )
    figures = text(Status("shop", workers=[old, Line(2), new, leaving], stats=stats))
    series = [line.rpartition(" ")[0] for line in figures.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert 'ketch_worker_serving{service="shop",worker="1"} 1\n' in figures
    assert 'ketch_calls_failed_total{service="shop",method="/a.A/B",status="NOT_FOUND"} 2\n' in figures
    assert r'handler="odd \"name\"\\\n"} 7' in figures
    assert len(re.findall("^# TYPE ketch_calls_total counter$", figures, re.MULTILINE)) == 1


def test_an_exit_code_is_said_in_words():
    assert [how_it_ended(code) for code in (3, -9, -40)] == [
        "ended with exit code 3",
        "was killed by SIGKILL",
        "was killed by signal 40",
    ]
