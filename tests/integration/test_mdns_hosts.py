"""Multicast DNS between hosts: network namespaces joined by a bridge, which is cut, healed, rebuilt and renumbered."""

import asyncio
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("mdns-hosts")

TTL = 2
HOST = """
import asyncio, logging, sys
from ketch.registries.mdns import MdnsRegistry
from ketch.registry import Instance
from ketch.url import Url

logging.basicConfig(stream=sys.stdout, format="log %(message)s", level=logging.INFO)

async def main(url, *ids):
    async with MdnsRegistry.from_url(Url.parse(url)) as registry:
        for id_ in ids:
            await registry.register(Instance("shop", id_, "192.0.2.1:5001"))
        async for snapshot in registry.watch("shop"):
            print("sees", *sorted(one.id for one in snapshot), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def ip(*words):
    """Run `ip`, which says why it can't."""
    return subprocess.run(("ip", *words), check=True, capture_output=True, text=True)


def remove(*names):
    """Remove namespaces; one that was never made is no error here."""
    for name in names:
        subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)


@pytest.fixture(scope="module")
def namespaces():
    name = f"ketch-{os.getpid()}"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        finally:
            ip("netns", "del", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root and a kernel with network namespaces and bridges: {getattr(error, 'stderr', error)}")


class Host:
    """A namespace with one interface; what runs there tells what it sees."""

    def __init__(self, switch, number):
        self.switch = switch
        self.number = number
        self.name = f"{switch}-{number}"
        self.address = f"10.77.0.{number}"
        self.processes = []

    def build(self):
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        self.plug()

    def plug(self):
        port = ("link", "add", f"p{self.number}", "type", "veth", "peer", "eth0", "netns", self.name)
        ip("-n", self.switch, *port)
        ip("-n", self.switch, "link", "set", f"p{self.number}", "master", "br0", "up")
        self.number_it(self.address)
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "route", "add", "224.0.0.0/4", "dev", "eth0")

    def number_it(self, address):
        ip("-n", self.name, "addr", "add", f"{address}/24", "dev", "eth0")

    def unplug(self):
        ip("-n", self.switch, "link", "del", f"p{self.number}")

    def link(self, state):
        ip("-n", self.name, "link", "set", "eth0", state)
        if state == "up":
            ip("-n", self.name, "route", "replace", "224.0.0.0/4", "dev", "eth0")

    async def run(self, *ids, interface=None):
        where = f"&interface={self.address}" if interface is None else interface
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.name, sys.executable, "-c", HOST, f"mdns://?ttl={TTL}{where}", *ids),
            stdout=asyncio.subprocess.PIPE,
        )
        self.processes.append(process)
        return Running(process)


class Running:
    def __init__(self, process):
        self.process = process
        self.fewest = 1 << 30

    async def says(self, wanted):
        """Read on until it says this."""
        async with asyncio.timeout(20):
            while line := (await self.process.stdout.readline()).decode().strip():
                if line.startswith("sees"):
                    self.fewest = min(self.fewest, len(line.split()) - 1)
                if wanted in line if wanted.startswith("log") else line == wanted:
                    return
        pytest.fail(f"it ended and never said {wanted!r}")

    async def sees(self, *ids):
        await self.says(" ".join(("sees", *sorted(ids))))

    async def stop(self):
        self.process.terminate() if self.process.returncode is None else None
        await self.process.wait()


@pytest.fixture
async def hosts(namespaces):
    """Four of them on one switch."""
    switch = f"ketch-{os.getpid()}"
    made = [Host(switch, number) for number in range(1, 5)]
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        ip("-n", switch, "link", "set", "br0", "up")
        for host in made:
            host.build()
        yield made
    finally:
        for host in made:
            for process in host.processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()
        for name in (*(host.name for host in made), switch):
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)  # noqa: ASYNC221 - it takes milliseconds, and nobody else is here


async def test_halves_of_a_split_network_lose_each_other_and_meet_again(hosts):
    running = [await host.run(f"shop-{host.number}") for host in hosts]
    every = [f"shop-{host.number}" for host in hosts]
    for one in running:
        await one.sees(*every)
    for host in hosts[2:]:
        ip("-n", host.switch, "link", "set", f"p{host.number}", "nomaster")
    ip("-n", hosts[0].switch, "link", "add", "br1", "type", "bridge", "mcast_snooping", "0")
    ip("-n", hosts[0].switch, "link", "set", "br1", "up")
    for host in hosts[2:]:
        ip("-n", host.switch, "link", "set", f"p{host.number}", "master", "br1")
    for half in (0, 2):
        for one in running[half : half + 2]:
            await one.sees(*every[half : half + 2])
    for host in hosts[2:]:
        ip("-n", host.switch, "link", "set", f"p{host.number}", "master", "br0")
    for one in running:
        await one.sees(*every)


async def test_a_rolling_restart_across_hosts_leaves_three_of_four(hosts):
    watcher = await hosts[0].run()
    running = [await host.run(f"shop-{host.number}") for host in hosts]
    every = [f"shop-{host.number}" for host in hosts]
    await watcher.sees(*every)
    watcher.fewest = len(every)
    for place, host in enumerate(hosts):
        running[place].process.send_signal(2)
        await running[place].process.wait()
        every[place] = f"shop-{host.number}-new"
        running[place] = await host.run(every[place])
        await watcher.sees(*every)
    assert watcher.fewest == 3


async def quiet_watcher(hosts, interface):
    """Start one on the second host that has done with asking: it has heard of an instance that came later."""
    await hosts[0].run("shop-1")
    watcher = await hosts[1].run(interface=interface)
    await watcher.sees("shop-1")
    await hosts[2].run("shop-3")
    await watcher.sees("shop-1", "shop-3")
    return watcher


@pytest.mark.parametrize("interface", [None, ""], ids=["named", "default"])
async def test_a_watcher_finds_all_again_after_its_link_was_down(hosts, interface):
    watcher = await quiet_watcher(hosts, interface)
    hosts[1].link("down")
    await watcher.sees()
    hosts[1].link("up")
    await watcher.sees("shop-1", "shop-3")


@pytest.mark.parametrize("interface", [None, ""], ids=["named", "default"])
async def test_a_watcher_finds_all_again_after_its_interface_was_made_anew(hosts, interface):
    watcher = await quiet_watcher(hosts, interface)
    hosts[1].unplug()
    await watcher.sees()
    hosts[1].plug()
    await watcher.sees("shop-1", "shop-3")


async def test_a_registrant_is_found_again_after_its_interface_was_made_anew(hosts):
    watcher = await hosts[0].run()
    registrant = await hosts[1].run("shop-2")
    await watcher.sees("shop-2")
    hosts[1].unplug()
    await registrant.says("log mdns: nothing can be")
    await watcher.sees()
    hosts[1].plug()
    await watcher.sees("shop-2")


async def test_a_registrant_is_found_again_at_its_hosts_new_address(hosts):
    watcher = await hosts[0].run()
    await hosts[1].run("shop-2", interface="")
    await watcher.sees("shop-2")
    ip("-n", hosts[1].name, "addr", "flush", "dev", "eth0")
    await watcher.sees()
    hosts[1].number_it("10.77.0.99")
    ip("-n", hosts[1].name, "route", "replace", "224.0.0.0/4", "dev", "eth0")
    await watcher.sees("shop-2")
