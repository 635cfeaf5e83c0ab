"""From a name to a plugin: ours, a stranger's, and none at all."""

import subprocess
import sys
import textwrap

import pytest

from ketch import Service
from ketch.broker import Broker
from ketch.brokers.memory import MemoryBroker
from ketch.errors import ConfigurationError, MissingExtra, PluginNotFound
from ketch.plugins import Plugins, locate


def test_ours_are_found_like_anybodys():
    plugins = Plugins()
    assert {"direct", "memory", "nats"} <= set(plugins.names("Broker"))
    assert {"local", "memory", "static"} <= set(plugins.names("Registry"))
    assert {"grpc", "memory"} <= set(plugins.names("Transport"))
    assert {"json", "protobuf"} <= set(plugins.names("Codec"))
    assert issubclass(plugins.load("Broker", "memory"), Broker)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("Broker", "natss", "Broker natss not found; did you mean nats?"),
        ("Broker", "carrier-pigeon", "Broker carrier-pigeon not found; there are: direct, "),
        ("Registry", "lokal", "Registry lokal not found; did you mean local?"),
        ("Transport", "grcp", "Transport grcp not found; did you mean grpc?"),
    ],
)
def test_an_unknown_one_is_answered_with_the_nearest_there_is(kind, name, said):
    with pytest.raises(PluginNotFound) as caught:
        Plugins().load(kind, name)
    assert str(caught.value).startswith(said)


def test_a_missing_driver_is_answered_with_the_pip_command(monkeypatch):
    for name in [
        name for name in sys.modules if name.partition(".")[0] == "nats" or name.startswith("ketch.brokers.nats")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats", None)  # as if it weren't installed
    with pytest.raises(MissingExtra, match=r"Broker nats needs the package nats.*pip install 'ketch\[nats\]'"):
        Plugins().load("Broker", "nats")


@pytest.mark.parametrize(
    ("setting", "address", "said"),
    [
        ("nats://a:1", "b:2", "two addresses"),
        ("nats", "memory://b", "but its address is of memory"),
        ("nats://a:1?timeout=1", "nats://b:2?timeout=2", "two URLs"),
        ("na ts", "", "neither a plugin's name nor a URL"),
        ("", "", "neither a plugin's name nor a URL"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(setting, address, said):
    with pytest.raises(ConfigurationError, match=said):
        locate("Broker", setting, address)


@pytest.mark.parametrize(
    ("setting", "address", "expected"),
    [
        ("nats", "127.0.0.1:4222", "127.0.0.1:4222"),
        ("nats", "nats://127.0.0.1:4222", "127.0.0.1:4222"),
        ("nats://127.0.0.1:4222", "", "127.0.0.1:4222"),
        ("nats://127.0.0.1:4222", "127.0.0.1:4222", "127.0.0.1:4222"),
        ("nats", "a:1,b:2", "a:1,b:2"),
    ],
)
def test_a_name_and_an_address_say_the_same_as_a_url(setting, address, expected):
    assert locate("Broker", setting, address).address == expected


def test_an_object_is_taken_as_it_is_and_anything_else_refused():
    broker = MemoryBroker()
    assert Service("x", broker=broker).init([], {}).broker is broker
    with pytest.raises(ConfigurationError, match="must be a Broker, a name or a URL, not int"):
        Service("x", broker=7).init([], {})


def test_a_strangers_broker_is_switched_on_by_the_variable_alone(tmp_path):
    """Two brokers of a package that ketch has never heard of; the program is the same for both."""
    (tmp_path / "pigeons.py").write_text(
        textwrap.dedent("""
        from ketch.brokers.memory import MemoryBroker

        class Pigeon(MemoryBroker):
            name = "pigeon"

        class Raven(MemoryBroker):
            name = "raven"
        """)
    )
    metadata = tmp_path / "pigeons-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[ketch.brokers]\npigeon = pigeons:Pigeon\nraven = pigeons:Raven\n")
    program = "from ketch import Service; print(Service('x').init([]).broker.name)"
    for name in ("pigeon", "raven"):
        output = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(tmp_path), "MICRO_BROKER": name},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert output.stdout == f"{name}\n"
