"""Where settings come from, and what is said when they are wrong."""

import argparse

import pytest

from ketch import Client, add_flags, settings
from ketch.errors import ConfigurationError
from ketch.options import build
from ketch.settings import KNOWN


def read(*argv, **environ):
    return settings.read(argv, environ)


def test_the_command_line_beats_the_environment_and_that_beats_the_default():
    assert read()["broker"] == "direct"
    assert read(MICRO_BROKER="nats")["broker"] == "nats"
    found = read("--broker", "memory", MICRO_BROKER="nats")
    assert (found["broker"], found.sources["broker"]) == ("memory", "--broker")
    assert read(MICRO_BROKER="nats").sources["broker"] == "MICRO_BROKER"
    assert read().sources["broker"] == "default"


def test_what_code_passes_beats_both():
    options = build(read("--server-version", "flag", MICRO_SERVER_VERSION="variable"), {"server_version": "code"})
    assert options.version == "code"
    pinned = build(read("--broker", "direct", "--broker-address", "127.0.0.1:1"), {"broker": "memory://mine"})
    assert (pinned.broker.name, pinned.broker.location) == ("memory", "mine")


def test_the_old_name_of_the_broker_variable_is_an_alias_that_the_new_one_beats():
    assert read(GO_MICRO_BROKER="nats")["broker"] == "nats"
    assert read(GO_MICRO_BROKER="nats", MICRO_BROKER="memory")["broker"] == "memory"


def test_an_empty_variable_counts_as_none():
    assert read(MICRO_BROKER="")["broker"] == "direct"


@pytest.mark.parametrize("setting", KNOWN, ids=lambda setting: setting.name)
def test_each_setting_has_a_flag_and_a_variable(setting):
    special = {
        "server_metadata": "zone=a",
        "log_level": "debug",
        "server_address": "127.0.0.1:7",
        "server_reflection": "off",
    }
    text = special.get(setting.name, "7")
    by_flag, by_variable = read(f"{setting.flag}={text}"), read(**{setting.variable: text})
    assert by_flag[setting.name] == by_variable[setting.name] == setting.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2.0), ("2s", 2.0), ("1.5s", 1.5), ("500ms", 0.5), ("1m", 60.0), ("0", 0.0)]
)
def test_durations_are_read_as_go_micro_writes_them(text, seconds):
    assert read("--client-request-timeout", text)["client_request_timeout"] == seconds


@pytest.mark.parametrize(
    ("argv", "environ", "said"),
    [
        (["--brokr", "nats"], {}, "unknown argument --brokr; did you mean --broker"),
        (["--brokr=nats"], {}, "unknown argument --brokr; did you mean --broker"),
        (["hello"], {}, "unknown argument hello"),
        (["--broker"], {}, "expected one argument"),
        (["--brok", "nats"], {}, "unknown argument --brok"),
        ([], {"MICRO_BROKR": "nats"}, "unknown variable MICRO_BROKR; did you mean MICRO_BROKER"),
        ([], {"MICRO_BROKER_ADRESS": "x"}, "did you mean MICRO_BROKER_ADDRESS"),
        (["--client-request-timeout", "soon"], {}, "--client-request-timeout: 'soon' is no valid"),
        ([], {"MICRO_SHUTDOWN_GRACE": "-1"}, "MICRO_SHUTDOWN_GRACE: '-1' is no valid"),
        ([], {"MICRO_SHUTDOWN_GRACE": "nan"}, "no valid"),
        ([], {"MICRO_SHUTDOWN_GRACE": "inf"}, "no valid"),
        ([], {"MICRO_LOG_LEVEL": "LOUD"}, "no valid log_level"),
        ([], {"MICRO_SERVER_METADATA": "zone"}, "no valid server_metadata"),
        (["--server-address", "foo"], {}, "no valid server_address"),
        (["--server-address", "127.0.0.1:99999"], {}, "no valid server_address"),
    ],
)
def test_what_is_wrong_is_said_with_its_name(argv, environ, said):
    with pytest.raises(ConfigurationError) as caught:
        settings.read(argv, environ)
    assert said in str(caught.value)


def test_variables_of_go_micro_that_mean_nothing_here_are_passed_over_and_told():
    found = read(MICRO_STORE="memory", MICRO_AUTH_TOKEN="x", MICRO_PROXY="", MICRO_SOMETHING_QUITE_DIFFERENT="z")
    assert found.unheeded == ("MICRO_AUTH_TOKEN", "MICRO_STORE")


def test_variables_that_ask_go_micro_for_what_ketch_does_are_heeded():
    assert read(MICRO_CLIENT="grpc", MICRO_SERVER="mucp").unheeded == ("MICRO_SERVER",)


@pytest.mark.parametrize(("theirs", "ours"), [("warn", "WARNING"), ("trace", "DEBUG"), ("fatal", "CRITICAL")])
def test_go_micros_names_of_levels_are_understood(theirs, ours):
    assert read(MICRO_LOG_LEVEL=theirs)["log_level"] == ours


def test_an_address_without_a_host_is_all_of_them_as_in_go():
    assert read(MICRO_SERVER_ADDRESS=":8080")["server_address"] == ":8080"


def test_labels_are_read_as_pairs():
    assert read("--server-metadata", "zone=a, tier=gold")["server_metadata"] == {"zone": "a", "tier": "gold"}


def test_a_programs_own_parser_takes_ketchs_flags_along():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    add_flags(parser)
    arguments = parser.parse_args(["--name", "Ada", "--broker", "memory"])
    client = Client.from_env(arguments, environ={"MICRO_TRANSPORT": "memory"})
    assert (client.options.broker.name, client.options.transport.name) == ("memory", "memory")


def test_a_clients_arguments_are_empty_unless_it_is_given_some():
    assert Client.from_env(environ={}).options.broker.name == "direct"


NATS = {"MICRO_BROKER": "nats", "MICRO_BROKER_ADDRESS": "10.0.0.1:4222"}


@pytest.mark.parametrize(
    ("code", "argv", "environ", "name", "location"),
    [
        (None, [], NATS, "nats", "nats://10.0.0.1:4222"),
        (None, ["--broker", "nats"], NATS, "nats", "nats://10.0.0.1:4222"),
        (None, ["--broker", "nats"], {"MICRO_BROKER_ADDRESS": "10.0.0.1:4222"}, "nats", "nats://10.0.0.1:4222"),
        (None, ["--broker", "nats://10.9.9.9:4222"], NATS, "nats", "nats://10.9.9.9:4222"),
        (None, ["--broker", "memory"], NATS, "memory", ""),
        (None, ["--broker-address", "10.9.9.9:4222"], NATS, "nats", "nats://10.9.9.9:4222"),
        (
            None,
            ["--broker-address", "10.9.9.9:4222"],
            {"MICRO_BROKER": "nats://10.0.0.1:1"},
            "nats",
            "nats://10.9.9.9:4222",
        ),
        ("nats", [], {"MICRO_BROKER_ADDRESS": "10.0.0.1:4222"}, "nats", "nats://10.0.0.1:4222"),
        ("nats", [], NATS, "nats", "nats://10.0.0.1:4222"),
        ("nats://10.9.9.9:4222", [], NATS, "nats", "nats://10.9.9.9:4222"),
        ("memory", [], NATS, "memory", ""),
        ("memory", ["--broker", "nats", "--broker-address", "10.0.0.1:4222"], {}, "memory", ""),
    ],
)
def test_an_address_belongs_to_the_plugin_that_it_was_given_for(code, argv, environ, name, location):
    """What stands higher beats what stands lower, also where one is a name and the other an address."""
    broker = build(settings.read(argv, environ), {"broker": code}).broker
    assert (broker.name, broker.location) == (name, location)


def test_the_name_of_a_client_comes_from_the_environment_unless_code_gives_one():
    assert Client.from_env(environ={"MICRO_SERVER_NAME": "tool"}).options.name == "tool"
    assert Client.from_env(name="mine", environ={"MICRO_SERVER_NAME": "tool"}).options.name == "mine"


def test_an_argument_that_may_hold_a_secret_is_not_repeated_whole():
    with pytest.raises(ConfigurationError) as caught:
        read("nats://me:secret@127.0.0.1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["nats://h:x", "nats://h:99999", "nats://h:1,", "nats://h:1?connect_timeout=-1"])
def test_a_nats_url_that_cannot_be_meant_is_refused_before_anything_is_connected(url):
    with pytest.raises(ConfigurationError):
        build(read("--broker", url), {})


def test_what_code_says_of_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(
        ConfigurationError, match="unknown setting request_timeout; did you mean client_request_timeout"
    ):
        Client.from_env(environ={}, request_timeout=3)


def test_code_may_switch_tls_on():
    assert Client.from_env(environ={}, client_tls_ca="roots.pem").options.transport.tls
    assert not Client.from_env(environ={}).options.transport.tls
