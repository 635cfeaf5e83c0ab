"""URLs of plugins: what they hold, what they refuse, and what they never show."""

import pytest

from ketch.errors import ConfigurationError
from ketch.url import Url


def test_a_bare_name_is_a_url_without_an_address():
    assert Url.parse("nats") == Url("nats")
    assert Url.parse("nats").address == Url.parse("nats").path == ""


def test_every_part_is_read_and_decoded():
    url = Url.parse("nats://ada%40home:p%3Aw%2F@127.0.0.1:4222/some/path%20x?stream=shop&lag=0.5&empty=")
    assert (url.name, url.address, url.path) == ("nats", "127.0.0.1:4222", "some/path x")
    assert (url.username, url.password) == ("ada@home", "p:w/")
    assert url.options == {"stream": "shop", "lag": "0.5", "empty": ""}


@pytest.mark.parametrize(
    ("text", "address", "path"),
    [
        ("nats://a:1,b:2,c:3", "a:1,b:2,c:3", ""),
        ("grpc://[::1]:50051", "[::1]:50051", ""),
        ("grpc://unix/run/x.sock", "unix", "run/x.sock"),
        ("local:///run/user/1000/ketch", "", "run/user/1000/ketch"),
        ("memory://", "", ""),
        ("redis://:only-a-password@h:1", "h:1", ""),
    ],
)
def test_addresses_and_paths_of_all_kinds(text, address, path):
    url = Url.parse(text)
    assert (url.address, url.path) == (address, path)


@pytest.mark.parametrize(
    "text", ["", "na ts", "127.0.0.1:4222", "://x", "nats:4222", "n/a", "nats://[::1", "na.ts://x", "nats://h#x"]
)
def test_what_is_neither_a_name_nor_a_url_is_refused(text):
    with pytest.raises(ConfigurationError):
        Url.parse(text)


def test_an_option_given_twice_is_refused():
    with pytest.raises(ConfigurationError, match="twice"):
        Url.parse("nats://h?a=1&a=2")


def test_an_unknown_option_is_refused_with_those_there_are():
    url = Url.parse("nats://h?strem=shop")
    with pytest.raises(ConfigurationError, match="no option 'strem'; it has: envelope, stream"):
        url.only("stream", "envelope")
    with pytest.raises(ConfigurationError, match="it has: none"):
        url.only()
    url.only("strem")


def test_numbers_are_read_or_refused():
    url = Url.parse("nats://h?a=2.5&b=x&c=nan&d=inf&e=")
    assert url.number("a", 1) == 2.5
    assert url.number("absent", 1) == 1
    for name in "bcde":
        with pytest.raises(ConfigurationError, match=f"option {name}=.* is no number"):
            url.number(name, 1)


@pytest.mark.parametrize(
    "text", ["nats://ada:s3cret@h:1/p?token=s3cret", "nats://s3cret@h:1/p", "nats://:s3cret@h:1/p"]
)
def test_neither_text_nor_repr_shows_a_secret(text):
    url = Url.parse(text)
    assert "s3cret" not in str(url) + repr(url)
    assert "***@h:1/p" in str(url)


@pytest.mark.parametrize(
    "text",
    [
        "ada:s3cret@h:4222",
        "nats://ada:s3cret#x@h",
        "nats://ada:s3cret@[::1",
        "na.ts://ada:s3cret@h",
        "nats://u:s3cret@h?a=1&a=2",
    ],
)
def test_no_error_shows_a_secret(text):
    with pytest.raises(ConfigurationError) as caught:
        Url.parse(text)
    assert "s3cret" not in str(caught.value)
