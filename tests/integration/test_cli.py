"""The `ketch` command, as its users run it: real processes on the defaults."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from google.protobuf.wrappers_pb2 import StringValue

SERVICE = """
    import os
    from abc import abstractmethod
    from google.protobuf.wrappers_pb2 import StringValue
    from ketch import NotFound, Service, Topic, context
    from ketch.rpc import Cardinality, Method, Servicer

    class Greeter(Servicer):
        contract = "greet.v1.Greeter"
        methods = {
            "greet": Method("greet.v1.Greeter", "Greet", StringValue, StringValue),
            "spell": Method("greet.v1.Greeter", "Spell", StringValue, StringValue, Cardinality.SERVER_STREAM),
        }

    class English(Greeter):
        async def greet(self, request, /):
            if not request.value:
                raise NotFound("nobody to greet")
            return StringValue(value=f"hello {request.value}{context.current().metadata.get('mark', '')}")

        async def spell(self, request, /):
            for letter in request.value:
                yield StringValue(value=letter)

    greeted = Topic("greeted", StringValue)
    service = Service("greeter", version="1")
    service.serve(English())

    @service.subscribe(greeted)
    async def heard(name: StringValue) -> None:
        if name.value == "deadly":
            os.kill(os.getpid(), 9)
        print("heard", name.value, "in", os.getpid(), flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "greeter.py").write_text(textwrap.dedent(SERVICE))
    return tmp_path


@pytest.fixture
def ketch(folder):
    """Start `ketch …`; what still runs in the end is stopped."""
    running = []

    def start(*args, stdin=None, **environ):
        process = subprocess.Popen(
            [sys.executable, "-m", "ketch", *args],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(folder), "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.fixture
def ask(ketch):
    """Run `ketch …` to its end; return exit code and output."""

    def run(*args, stdin=None, **environ):
        process = ketch(*args, stdin=stdin, **environ)
        output, _ = process.communicate(stdin, timeout=30)
        return process.returncode, output

    return run


def until(process, *texts):
    """Read on until each text has been seen, in any order; return the lines."""
    wanted, lines = set(texts), []
    for line in process.stdout:
        lines.append(line)
        wanted = {text for text in wanted if text not in line}
        if not wanted:
            return lines
    return pytest.fail(f"{wanted} did not come; this did: {lines}")


@pytest.fixture
def greeter(ketch):
    process = ketch("run", "greeter:service")
    until(process, "is up")
    return process


def test_a_call_takes_and_prints_json_without_any_proto_file(greeter, ask):
    assert ask("call", "greet.v1.Greeter/Greet", '"Ada"') == (0, '"hello Ada"\n')
    assert ask("call", "greet.v1.Greeter/Greet", "-", stdin='"Zoë"') == (0, '"hello Zoë"\n')
    assert ask("call", "greet.v1.Greeter/Greet", '"Ada"', "--metadata", "Mark=!") == (0, '"hello Ada!"\n')
    assert ask("call", "greet.v1.Greeter/Greet", '"Ada"', "--service", "greeter") == (0, '"hello Ada"\n')


def test_a_call_goes_to_an_address_without_asking_the_registry(greeter, ask):
    _, listing = ask("services", "--json")
    [instance] = json.loads(listing)
    assert ask("call", "greet.v1.Greeter/Greet", '"Ada"', "--address", instance["address"])[0] == 0


def test_a_streaming_call_prints_one_json_a_line(greeter, ask):
    assert ask("call", "greet.v1.Greeter/Spell", '"abc"', "--stream") == (0, '"a"\n"b"\n"c"\n')


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["greet.v1.Greeter/Greet", '""'], 1, "NOT_FOUND: nobody to greet"),
        (["greet.v1.Greeter/Nope", "{}"], 1, "UNIMPLEMENTED"),
        (["greet.v1.Greeter/Greet", "{nonsense"], 2, "the body is no JSON"),
        (["greet.v1.Greeter/Greet", "{}"], 1, "INVALID_ARGUMENT"),
        (["nonsense"], 2, "no CONTRACT/METHOD"),
        (["greet.v1.Other/Greet", "{}"], 1, "UNAVAILABLE: greet.v1.Other: no instance"),
        (["greet.v1.Greeter/Greet", '"x"', "--address", "127.0.0.1:1"], 1, "UNAVAILABLE"),
        (["greet.v1.Greeter/Greet", '"x"', "--metadata", "nonsense"], 2, "name=value"),
    ],
)
def test_a_call_that_fails_says_why(greeter, ask, args, code, said):
    assert_failed(ask("call", *args), code, said)


def assert_failed(result, code, said):
    assert result[0] == code
    assert said in result[1]
    assert "Traceback" not in result[1]


def test_what_is_published_is_heard_and_seen_by_tail(greeter, ketch, ask):
    tail = ketch("tail", "greeted", "--count", "2")
    until(tail, "Listening")
    code, output = ask("publish", "greeted", '"Ada"', "--metadata", "x=y")
    assert (code, output) == (0, "Published 1 event to greeted by broker direct\n")
    until(greeter, "heard Ada")
    assert ask("publish", "greeted", "-", stdin='"Bob\\u001b"')[0] == 0
    shown, _ = tail.communicate(timeout=20)
    assert "x: y" in shown
    assert "Ada" in shown
    assert "\x1b" not in shown, "what comes from elsewhere must not steer the terminal"


def test_tail_decodes_protobuf_by_type_and_shows_field_numbers_without(ketch, ask, tmp_path):
    typed = ketch("tail", "greeted", "--count", "1", "--type", "google.protobuf.wrappers_pb2:StringValue", "--json")
    plain = ketch("tail", "greeted", "--count", "1")
    for process in (typed, plain):
        until(process, "Listening")
    body = StringValue(value="Ada").SerializeToString().decode()
    assert ask("publish", "greeted", body, "--content-type", "application/protobuf")[0] == 0
    record = json.loads(typed.communicate(timeout=20)[0])
    assert (record["topic"], record["body"]) == ("greeted", "Ada")
    assert '{"1": "Ada"}' in plain.communicate(timeout=20)[0]


def test_a_body_that_is_no_json_is_not_published(ask):
    assert_failed(ask("publish", "greeted", "{nonsense"), 2, "the body is no JSON")


def test_health_is_asked_of_each_instance(greeter, ask):
    code, output = ask("health")
    assert code == 0
    lines = output.splitlines()
    assert lines[0].split() == ["SERVICE", "ADDRESS", "STATUS", "NOT", "SERVING"]
    assert lines[1].split()[::2] == ["greeter", "SERVING"]
    address = lines[1].split()[1]
    assert ask("health", "--address", address)[0] == 0
    assert ask("health", "nobody")[0] == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        code, output = ask("health", "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert code == 1
    assert "UNAVAILABLE" in output


def test_services_and_topics_are_listed(greeter, ask):
    code, output = ask("services")
    assert code == 0
    assert re.search(r"greeter +1 +127\.0\.0\.1:\d+ +greet\.v1\.Greeter", output)
    code, output = ask("topics")
    assert code == 0
    assert re.search(r"greeted +greeter +greeter +127\.0\.0\.1:\d+", output)
    assert ask("services", "nobody")[1].startswith("No service in registry local")


def test_a_service_is_run_by_name_and_stops_with_exit_code_zero(greeter):
    greeter.send_signal(signal.SIGTERM)
    greeter.communicate(timeout=20)
    assert greeter.returncode == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nope:service"], "there is no module nope"),
        (["greeter:nope"], "nope isn't there"),
        (["greeter:greeted"], "is a Topic, not a ketch Service"),
        (["greeter"], "no MODULE:SERVICE"),
        (["greeter:service", "--broker", "natss"], "Broker natss not found; did you mean nats"),
        (["greeter:service", "--workers", "2", "--selector", "x"], "Selector x not found"),
        (["broken:service"], "ZeroDivisionError"),
    ],
)
def test_a_service_that_cannot_be_run_says_why_and_the_exit_code_is_two(ask, folder, args, said):
    (folder / "broken.py").write_text("1 / 0\n")
    code, output = ask("run", *args)
    assert code == 2
    assert said in output


def test_an_import_that_fails_is_shown_from_the_users_line_on(ask, folder):
    (folder / "broken.py").write_text("import greeter\n1 / 0\n")
    _, output = ask("run", "broken:service")
    assert 'broken.py", line 2' in output
    assert "Traceback" not in output
    assert "cli/run.py" not in output


def test_workers_share_the_events_and_one_that_is_killed_is_started_again(ketch, ask):
    supervisor = ketch("run", "greeter:service", "--workers", "2")
    lines = until(supervisor, "2 worker(s)", "is up") + until(supervisor, "is up")
    assert len([line for line in lines if "is up" in line]) == 2
    assert len(json.loads(ask("services", "--json")[1])) == 2
    assert ask("publish", "greeted", '"deadly"')[0] == 0
    until(supervisor, "was killed by SIGKILL", "is up")
    assert len(json.loads(ask("services", "--json")[1])) == 2
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=20)
    assert supervisor.returncode == 0
    assert json.loads(ask("services", "--json")[1]) == []


def test_a_change_restarts_the_service_also_after_a_broken_one(ketch, ask, folder):
    supervisor = ketch("run", "greeter:service", "--reload")
    until(supervisor, "is up")
    source = (folder / "greeter.py").read_text()
    (folder / "greeter.py").write_text(source + "\nnonsense(\n")
    until(supervisor, "greeter.py changed, starting new workers", "SyntaxError", "the old ones go on")
    (folder / "greeter.py").write_text(source.replace("hello", "goodbye"))
    until(supervisor, "greeter.py changed, starting new workers", "is up", "the old ones drain")
    assert ask("call", "greet.v1.Greeter/Greet", '"Ada"') == (0, '"goodbye Ada"\n')
    supervisor.send_signal(signal.SIGINT)
    supervisor.communicate(timeout=20)
    assert supervisor.returncode == 0


def test_plugins_are_listed_with_what_they_can(ask):
    code, output = ask("plugins")
    assert code == 0
    assert re.search(r"broker +nats +ketch \S+ +.*wildcards", output)


def test_the_configuration_is_shown_with_its_sources_and_without_secrets(ask):
    code, output = ask("config", "--registry", "static", MICRO_BROKER="nats://me:secret@127.0.0.1:4222")
    assert code == 0
    assert re.search(r"broker +nats://me:\*\*\*@127\.0\.0\.1:4222 +MICRO_BROKER", output)
    assert re.search(r"registry +static +--registry", output)
    assert "secret" not in output


def test_an_interrupt_is_no_traceback(ketch):
    tail = ketch("tail", "greeted")
    until(tail, "Listening")
    tail.send_signal(signal.SIGINT)
    output, _ = tail.communicate(timeout=20)
    assert tail.returncode == 130
    assert "Traceback" not in output


def test_help_names_every_command(ask):
    code, output = ask("--help")
    assert code == 0
    for command in ("run", "call", "publish", "tail", "services", "health", "topics", "generate", "plugins", "config"):
        assert f"\n    {command} " in output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["publish", "bad topic", "{}"], "no topic name"),
        (["publish", "greeted", "{}", "--count", "-1"], "--count"),
        (["call", "a.B/C", "{}", "--metadata", "bad name=1"], "no header name"),
        (["call", "a.B/C", "[" * 50_000], "the body is no JSON"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_exit_code_two(ask, args, said):
    assert_failed(ask(*args), 2, said)


def test_a_peer_cannot_steer_the_terminal(ketch, ask, folder):
    source = (folder / "greeter.py").read_text()
    (folder / "greeter.py").write_text(source.replace('"nobody to greet"', r'"red \x1b[31m and \x9b31m"'))
    until(ketch("run", "greeter:service"), "is up")
    for body in ('""', r'"\u001b[31m\u009b\u202e"'):
        _, output = ask("call", "greet.v1.Greeter/Greet", body)
        assert not {"\x1b", "\x9b", "\u202e"} & set(output)


def test_tail_outlives_an_event_that_is_nested_beyond_reason(ketch, ask):
    tail = ketch("tail", "greeted", "--count", "2")
    until(tail, "Listening")
    for body in ("[" * 100_000, "after"):
        ask("publish", "greeted", "-", "--content-type", "application/json; nested", stdin=body)
    output, _ = tail.communicate(timeout=20)
    assert tail.returncode == 0
    assert "100000 bytes" in output


def test_a_second_signal_makes_the_workers_stop_at_once(ketch, ask, folder):
    source = (folder / "greeter.py").read_text()
    (folder / "greeter.py").write_text(
        source.replace(
            "async def heard(name: StringValue) -> None:",
            "async def heard(name: StringValue) -> None:\n"
            "    import asyncio; print('begin', flush=True); await asyncio.sleep(50)",
        )
    )
    supervisor = ketch("run", "greeter:service", "--workers", "2", "--shutdown-grace", "50s")
    until(supervisor, "is up")
    until(supervisor, "is up")
    ask("publish", "greeted", '"slow"')
    until(supervisor, "begin")
    supervisor.send_signal(signal.SIGINT)
    until(supervisor, "stopping")
    supervisor.send_signal(signal.SIGINT)
    supervisor.communicate(timeout=20)
    assert supervisor.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_workers_do_not_outlive_a_supervisor_that_was_killed(ketch, ask):
    supervisor = ketch("run", "greeter:service", "--workers", "2")
    until(supervisor, "is up")
    until(supervisor, "is up")
    supervisor.kill()
    output, _ = supervisor.communicate(timeout=20)  # their output is closed only when they have ended
    # Each hears of it in two ways, by signal and by its link, and in any order.
    assert len([line for line in output.splitlines() if "stopping" in line]) >= 2
    assert json.loads(ask("services", "--json")[1]) == []
