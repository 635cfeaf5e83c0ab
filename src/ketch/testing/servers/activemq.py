"""ActiveMQ, a message broker that speaks STOMP, from the system's packages."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .process import Server, free_port, listens, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_JAR = Path("/usr/share/activemq/bin/activemq.jar")
_SOURCE = "apt install activemq"

_HELLO = b"CONNECT\naccept-version:1.2\nhost:x\nlogin:%s\npasscode:%s\n\n\x00"

#: A small and quick virtual machine, and what the program looks into that Java hides since version 9.
_JAVA = (
    "-Xms48m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "--add-reads=java.xml=java.logging",
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("lang", "util", "net", "security")),
)

_CONFIG = """<beans xmlns="http://www.springframework.org/schema/beans"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans
    http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
    http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="ketch" dataDirectory="{folder}/data"
      schedulerSupport="true" persistent="true" useShutdownHook="true" start="true">
    <persistenceAdapter>
      <kahaDB directory="{folder}/kahadb" journalDiskSyncStrategy="{sync}" preallocationStrategy="sparse_file"
        journalMaxFileLength="4mb"/>
    </persistenceAdapter>
    {plugins}
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="64 mb"/></memoryUsage>
      <storeUsage><storeUsage limit="512 mb"/></storeUsage>
      <tempUsage><tempUsage limit="64 mb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{port}?transport.defaultHeartBeat=0,0"/>
    </transportConnectors>
  </broker>
</beans>
"""

_USERS = """<plugins><simpleAuthenticationPlugin><users>
  <authenticationUser username="{user}" password="{password}" groups="users"/>
</users></simpleAuthenticationPlugin></plugins>"""


def _installed() -> bool:
    return _JAR.exists()


@asynccontextmanager
async def activemq_server(
    port: int | None = None, *, user: str = "", password: str = "", sync: bool = True
) -> AsyncIterator[Server]:
    """Run ActiveMQ with STOMP, a scheduler, and messages kept in a temporary folder; it takes seconds to start.

    Args:
        port: where to listen on 127.0.0.1; None for a free port.
        user: the only one who may connect, with `password`; "" for anybody.
        password: see above.
        sync: whether what it confirms is on the disk; else it is within a second.

    Raises:
        RuntimeError: there is no ActiveMQ, or it doesn't start.
    """
    java = program("java", "apt install default-jre-headless")
    if not _installed():
        raise RuntimeError(f"there is no ActiveMQ here: {_SOURCE}")
    port = free_port() if port is None else port
    with tempfile.TemporaryDirectory(prefix="ketch-activemq-") as name:
        folder = Path(name)
        (folder / "activemq.xml").write_text(
            _CONFIG.format(
                folder=folder,
                port=port,
                sync="always" if sync else "periodic",
                plugins=_USERS.format(user=user, password=password) if user else "",
            )
        )
        home = _JAR.parents[1]
        places = {"activemq.home": home, "activemq.base": folder, "activemq.conf": folder, "activemq.data": folder}
        command = [
            java,
            *_JAVA,
            *(f"-D{key}={place}" for key, place in places.items()),
            "-jar",
            str(_JAR),
            "start",
            f"xbean:file:{folder}/activemq.xml",
        ]
        hello = _HELLO % (user.encode(), password.encode())
        answers = partial(listens, port, b"CONNECTED", hello)
        server = Server(f"stomp://127.0.0.1:{port}", command, folder, answers, patience=40.0)
        try:
            await server.start()
            yield server
        finally:
            await server.stop()
