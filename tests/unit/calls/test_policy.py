"""Policies: what holds for a call, and what a file may say."""

import pytest

from ketch import Client, Service
from ketch.errors import ConfigurationError
from ketch.policy import DEFAULT, CallPolicy, Policies
from ketch.policyfile import parse, read

PATH = "/shop.v1.Orders/Get"


def test_where_nobody_says_anything_the_defaults_hold():
    assert Policies().of("shop", PATH) == DEFAULT


def test_the_particular_wins_over_the_general_field_by_field():
    policies = Policies(
        {
            "": CallPolicy(timeout=1, attempts=1, prefer="zone"),
            "shop": CallPolicy(timeout=2, attempts=2),
            "shop.v1.Orders": CallPolicy(timeout=3, attempts=4),
            "shop.v1.Orders/Get": CallPolicy(timeout=4),
        }
    )
    policy = policies.of("shop", PATH, CallPolicy(hedge=0.5))
    assert (policy.timeout, policy.attempts, policy.prefer, policy.hedge) == (4, 4, "zone", 0.5)
    assert policies.of("shop", "/shop.v1.Orders/List").timeout == 3
    assert policies.of("shop", "/other.Contract/List").timeout == 2
    assert policies.of("stock", "/other.Contract/List").timeout == 1


def test_a_false_or_a_zero_counts_as_said():
    policies = Policies({"": CallPolicy(idempotent=True, subset=5), "shop": CallPolicy(idempotent=False, subset=0)})
    assert policies.of("shop").idempotent is False
    assert policies.of("shop").subset == 0


def test_code_stands_over_the_file():
    code = Policies({"shop": CallPolicy(timeout=1)})
    file = Policies({"shop": CallPolicy(timeout=2, attempts=2), "": CallPolicy(backoff=1)})
    policy = code.over(file).of("shop")
    assert (policy.timeout, policy.attempts, policy.backoff) == (1, 2, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempts", 0),
        ("attempts", 99),
        ("timeout", -1),
        ("timeout", float("nan")),
        ("budget", 1.5),
        ("breaker", -0.1),
        ("subset", -1),
        ("connections", 0),
        ("hedge", "sometimes"),
        ("hedge", 0.0),
        ("retry_on", ("BROKEN",)),
        ("split", {}),
        ("split", {"version": {}}),
        ("split", {"version": {"1": 0}}),
        ("split", {"version": {"1": -1, "2": 5}}),
        ("split", {"version": {"1": 1}, "zone": {"a": 1}}),
    ],
)
def test_what_cannot_be_is_refused(field, value):
    with pytest.raises(ConfigurationError, match=field):
        CallPolicy(**{field: value})


FILE = """
[call]
timeout = "1.5s"
retry_on = ["UNAVAILABLE", "ABORTED"]

[call."go.micro.srv.user"]
selector = "consistent_hash"
key = "request.id"
match = { zone = "a" }
split = { version = { "1.2.0" = 95, "1.3.0" = 5 } }

[call.go.micro.srv.email]
idempotent = true
hedge = "20ms"
backoff = 0.5

[call."shop.v1.Orders/Get"]
hedge = "off"
max_in_flight = 10
"""


def test_a_file_is_read(tmp_path):
    file = tmp_path / "calls.toml"
    file.write_text(FILE)
    policies = read(str(file))
    assert policies.of("x").timeout == 1.5
    assert policies.of("x").retry_on == ("UNAVAILABLE", "ABORTED")
    user = policies.of("go.micro.srv.user")
    assert (user.selector, user.key, user.match) == ("consistent_hash", "request.id", {"zone": "a"})
    assert user.split == {"version": {"1.2.0": 95, "1.3.0": 5}}
    email = policies.of("go.micro.srv.email")
    assert (email.idempotent, email.hedge, email.backoff) == (True, 0.02, 0.5)
    assert policies.of("shop", PATH).hedge == "off"
    assert policies.of("shop", PATH).max_in_flight == 10


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[call]\ntimeut = 1", r"\[call\] has no timeut; did you mean timeout\?"),
        ("[calls]", r"unknown table \[calls\]"),
        ("call = 3", r"call is a table"),
        ("[call]\ntimeout = 'soon'", "it is a time"),
        ("[call]\ntimeout = true", "it is a time"),
        ("[call]\nattempts = 2.5", "attempts = 2.5: it is a whole number"),
        ("[call]\nattempts = true", "it is a whole number"),
        ("[call]\nidempotent = 'yes'", "true or false"),
        ("[call]\nmatch = 'zone'", "a table"),
        ("[call]\nsplit = { version = 5 }", "a table of shares"),
        ("[call]\nretry_on = 'UNAVAILABLE'", "a list of statuses"),
        ("[call.'a.B/C']\nattempts = 0", r'\[call."a.B/C"\] attempts'),
        ("not toml", "no TOML"),
    ],
)
def test_what_a_file_cannot_say_is_told_with_its_place(tmp_path, text, complaint):
    file = tmp_path / "ketch.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        read(str(file))
    assert str(file) in str(caught.value)


def test_a_file_that_was_named_has_to_be_there(tmp_path):
    with pytest.raises(ConfigurationError, match="can't be read"):
        read(str(tmp_path / "none.toml"))


def test_without_a_name_ketch_toml_is_read_where_the_program_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read("").of("shop") == DEFAULT
    (tmp_path / "ketch.toml").write_text("[call.shop]\ntimeout = 9")
    assert read("").of("shop").timeout == 9


def test_a_client_takes_the_file_of_its_environment_and_code_over_it(tmp_path):
    file = tmp_path / "calls.toml"
    file.write_text("[call.shop]\ntimeout = 9\nattempts = 2")
    client = Client.from_env(environ={"MICRO_CONFIG_FILE": str(file)}, policies={"shop": CallPolicy(timeout=1)})
    policy = client.options.policies.of("shop")
    assert (policy.timeout, policy.attempts) == (1, 2)


def test_a_service_takes_policies(tmp_path):
    service = Service("shop", policies={"": CallPolicy(attempts=1)})
    assert service.init([], {}).policies.of("x").attempts == 1
    with pytest.raises(ConfigurationError, match="not a CallPolicy"):
        Service("shop", policies={"x": {"attempts": 1}}).init([], {})


def test_tables_may_be_nested_as_names_are_read():
    assert parse({"call": {"a": {"b": {"timeout": 1, "c": {"timeout": 2}}}}}).of("a.b").timeout == 1
    assert parse({"call": {"a": {"b": {"timeout": 1, "c": {"timeout": 2}}}}}).of("a.b.c").timeout == 2


@pytest.mark.parametrize("field", ["subset", "connections", "eject_after", "eject_time"])
def test_what_all_calls_to_a_service_share_is_not_said_for_a_method(field):
    said = {"call": {"shop.v1.Orders/Get": {field: 2}}}
    with pytest.raises(
        ConfigurationError, match=f"shop.v1.Orders/Get: {field} can't differ between calls to one service"
    ):
        parse(said)
    assert parse({"call": {"shop.v1.Orders": {field: 2}}})
