"""RabbitMQ, from apt's `rabbitmq-server`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from .process import Server, free_port, listens, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_SOURCE = "apt install rabbitmq-server"
_PLACE = "/usr/lib/rabbitmq/bin"  # the script in PATH wants to be root or the server's own user

#: What a client says, that the server answers with its first method.
_GREETING, _METHOD = b"AMQP\x00\x00\x09\x01", b"\x01"

#: Bind Erlang's own port to loopback too, and start no port mapper that would stay behind.
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"

#: What Erlang evaluates once the server has started.
#:
#: After a crash a quorum queue of 3.10 on a single node holds no election when it had consumers
#: (rabbitmq-server#10070): it would stay without a leader, and take nothing.
#:
#: It writes down which quorum queues there are when nothing has changed for half a second. After a crash before that it
#: throws away what it has on disk of a queue, confirmed or not, so a test of ours that kills it earlier is a test of
#: its. Here it writes without pause.
_ELECTION = "[ra:trigger_election({N,node()})||{N,_}<-ra_directory:list_registered(quorum_queues)]"
_WRITING = "spawn(fun()->F=fun(G)->[dets:sync(T)||T<-dets:all()],mnesia:sync_log(),timer:sleep(50),G(G)end,F(F)end)"
_EVALUATED = f"-eval {_ELECTION},{_WRITING}."

#: Seconds that such writing may take on a busy machine.
_WRITTEN = 1.0


class _RabbitMQ(Server):
    """A server whose crash comes when its newest queues are on disk."""

    async def kill(self) -> None:
        """Wait a moment, then end it with SIGKILL."""
        await asyncio.sleep(_WRITTEN)
        await super().kill()


@asynccontextmanager
async def rabbitmq_server(config: str = "") -> AsyncIterator[Server]:
    """Run a RabbitMQ server, user `guest`, password `guest`; what is durable outlives a kill and a restart.

    Args:
        config: more lines of its configuration file.

    Raises:
        RuntimeError: there is no rabbitmq-server, or it doesn't start.
    """
    found = program("rabbitmq-server", _SOURCE, _PLACE)
    epmd = program("epmd", _SOURCE)
    port, mapper_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ketch-rabbitmq-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(config)
        mapper = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once; the program is the one found
            [epmd, "-port", str(mapper_port), "-address", "127.0.0.1"], stdin=subprocess.DEVNULL
        )
        server = _RabbitMQ(
            f"rabbitmq://127.0.0.1:{port}",
            [found],
            folder,
            partial(listens, port, _METHOD, _GREETING),
            environment=_environment(folder, port, mapper_port),
            patience=40.0,
        )
        try:
            await server.start()
            yield server
        finally:
            await Server.kill(server)
            mapper.kill()
            await asyncio.to_thread(mapper.wait)


def _environment(folder: Path, port: int, mapper_port: int) -> dict[str, str]:
    return {
        "PATH": os.defpath + ":/usr/sbin:/sbin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        # The script then replaces itself by Erlang's machine, so that its process id is the server's.
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_NODENAME": f"ketch{uuid4().hex[:12]}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_ERLANG} {_EVALUATED}",
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
