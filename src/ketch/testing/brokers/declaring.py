# ruff: noqa: D102 - a test's name is its sentence
"""What a plugin says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ...errors import ConfigurationError
from ...plugins import Plugins
from ...url import Url
from .cases import Cases

if TYPE_CHECKING:
    from ...broker import Broker
    from .stage import Stage


class Declaring(Cases):
    """Its name, its options, its place, its patterns."""

    async def test_an_unknown_option_is_refused(self, url: str) -> None:
        parsed = Url.parse(url)
        parsed.options["no-such-option"] = "1"
        with pytest.raises(ConfigurationError, match="no-such-option"):
            Plugins().load("Broker", parsed.name).from_url(parsed)

    async def test_its_name_is_the_one_it_is_chosen_by(self, stage: Stage, url: str) -> None:
        assert stage.closed().name == Url.parse(url).name

    async def test_its_location_holds_no_password(self, url: str, here: Broker) -> None:
        password = Url.parse(url).password
        assert not password or password not in here.location

    async def test_a_pattern_of_topics_gets_each_of_them(self, stage: Stage, here: Broker, there: Broker) -> None:
        self.need(here, "wildcards")
        subscription = await stage.subscribe(there, stage.topic + ".*")
        for name in ("a", "b"):
            await stage.publish(here, [name.encode()], f"{stage.topic}.{name}")
        came = await stage.take(subscription, 2)
        assert {(m.topic, m.body) for m in came} == {(f"{stage.topic}.a", b"a"), (f"{stage.topic}.b", b"b")}
