"""A service as a process: signals, exit codes, what it says."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import asyncio, sys
from dataclasses import dataclass
from ketch import Service, Topic

@dataclass
class User:
    name: str

topic = Topic("user.created", User)
service = Service("go.micro.srv.test", broker="memory", transport="memory")
publisher = service.publisher(topic)

@service.subscribe(topic)
async def handle(user: User) -> None:
    print("begin", user.name, flush=True)
    await asyncio.sleep(float(user.name))
    print("end", user.name, flush=True)

@service.lifespan
async def resource():
    {lifespan}
    try:
        yield
    finally:
        print("closed", flush=True)

if __name__ == "__main__":
    service.run()
    print("returned", flush=True)
"""


class Program:
    def __init__(self, tmp_path, lifespan="pass"):
        self.path = tmp_path / "program.py"
        self.path.write_text(textwrap.dedent(PROGRAM).format(lifespan=lifespan))
        self.environ = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)}
        self.process = None

    def start(self, *args, **environ):
        self.process = subprocess.Popen(
            [sys.executable, str(self.path), *args],
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    def until(self, text):
        """Read on to the line that holds `text`; the test's time limit bounds it."""
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if text in line:
                return line
        pytest.fail(f"{text!r} did not come; this did: {lines}")

    def end(self):
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output


@pytest.fixture
def program(tmp_path):
    made = []

    def make(**kwargs):
        made.append(Program(tmp_path, **kwargs))
        return made[-1]

    yield make
    for program in made:
        if program.process is not None:
            program.process.kill()
            program.process.communicate()


PUBLISH = "asyncio.get_running_loop().create_task(publisher.publish(User('0.3')))"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_zero(program, number):
    running = program(lifespan=f"asyncio.get_running_loop().call_later(0.1, lambda: {PUBLISH})").start()
    running.until("begin")
    running.process.send_signal(number)
    code, output = running.end()
    assert code == 0
    assert [line for line in output.splitlines() if "stopping" not in line] == ["end 0.3", "closed", "returned"]


def test_a_second_signal_ends_it_at_once_and_the_exit_code_says_so(program):
    running = program(
        lifespan="asyncio.get_running_loop().call_later(0.1, lambda: " + PUBLISH.replace("0.3", "60") + ")"
    )
    running.start().until("begin")
    running.process.send_signal(signal.SIGTERM)
    running.until("stopping")
    running.process.send_signal(signal.SIGTERM)
    code, output = running.end()
    assert code == 1
    assert "closed" in output


def test_a_signal_during_start_unwinds(program):
    running = program(lifespan="print('opening', flush=True); await asyncio.sleep(60)").start()
    running.until("opening")
    running.process.send_signal(signal.SIGTERM)
    code, output = running.end()
    assert (code, output) == (0, "returned\n")


def test_one_line_at_start_says_what_is_active_and_where(program, tmp_path):
    running = program().start("--server-version", "1.2.0")
    line = running.until("is up")
    for part in (
        "go.micro.srv.test 1.2.0",
        "broker memory",
        f"registry local at {tmp_path}",
        "transport memory at memory:",
    ):
        assert part in line
    assert line.rstrip().endswith("subscribed to user.created")


@pytest.mark.parametrize(
    ("args", "environ", "said"),
    [
        (["--registry", "locla"], {}, "Registry locla not found; did you mean local"),
        (["--regsitry", "local"], {}, "unknown argument --regsitry; did you mean --registry"),
        ([], {"MICRO_REGISTRYY": "local"}, "unknown variable MICRO_REGISTRYY; did you mean MICRO_REGISTRY"),
        (["--shutdown-grace", "soon"], {}, "'soon' is no valid shutdown_grace"),
        (["--registry", "local://?spede=1"], {}, "has no option 'spede'"),
        ([], {"MICRO_SELECTOR": "rnadom"}, "Selector rnadom not found; did you mean random"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line_and_exit_code_two(program, args, environ, said):
    code, output = program().start(*args, **environ).end()
    assert code == 2
    assert said in output
    assert "Traceback" not in output


def test_a_registry_that_is_not_writable_is_a_failed_start(program, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, output = program().start("--registry", f"local://{tmp_path}/file/registry").end()
    assert code == 1
    assert str(tmp_path / "file") in output
    assert "Traceback" not in output


def test_a_start_that_breaks_shows_where_and_exits_with_one(program):
    code, output = program(lifespan="raise ValueError('the cellar is flooded')").start().end()
    assert code == 1
    assert "ValueError: the cellar is flooded" in output


def test_the_command_line_beats_the_environment(program):
    running = program().start("--server-version", "flag", MICRO_SERVER_VERSION="variable")
    assert "go.micro.srv.test flag is up" in running.until("is up")


def test_help_lists_every_setting_with_its_variable(program):
    code, output = program().start("--help").end()
    assert code == 0
    for word in ("--broker-address", "--server-advertise", "--shutdown-grace", "MICRO_BROKER_ADDRESS"):
        assert word in output
