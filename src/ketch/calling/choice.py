"""Choice: which candidates the calls of one method may go to, and which of them the next one goes to.

What labels, health and shares make of the candidates is worked out when one of these changes; a call pays for its
selector only.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import accumulate
from random import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ..policy import CallPolicy
    from ..registry import Instance
    from ..selector import Candidate, Selector

#: The label of an instance that is its version.
VERSION = "version"


class Choice:
    """Picks candidates by a policy.

    Args:
        policy: its `match`, `split` and `prefer` count.
        selector: picks among those that are equally good.
        labels: this program's own, for `prefer`.
    """

    def __init__(self, policy: CallPolicy, selector: Selector, labels: Mapping[str, str]) -> None:
        self._match = dict(policy.match or {})
        self._split = next(iter((policy.split or {}).items()), None)
        self._prefer = policy.prefer or ""
        self._home = labels.get(self._prefer, "")
        self._select = selector
        self._fit: tuple[Candidate, ...] = ()
        self._groups: list[tuple[Candidate, ...]] = []
        self._bounds: list[float] = []
        self._only: Candidate | None = None

    def arrange(self, candidates: Sequence[Candidate]) -> None:
        """Take the candidates there are, or their health, into account; what is out is used only if all are."""
        fit = tuple(one for one in candidates if self._matches(one.instance))
        well = tuple(one for one in fit if not one.out) or fit
        shares = self._share(well)
        self._groups = [self._near(group) for _, group in shares]
        total = sum(share for share, _ in shares)
        self._bounds = [bound / total for bound in accumulate(share for share, _ in shares)]
        self._fit = fit if self._split is None else tuple(one for one in fit if self._named(one))
        self._only = self._groups[0][0] if len(self._groups) == 1 and len(self._groups[0]) == 1 else None

    def pick(self, key: str) -> Candidate | None:
        """Return the candidate that the next call goes to, None where there is none."""
        if self._only is not None:
            return self._only
        groups = self._groups
        if len(groups) == 1:
            return self._select(groups[0], key)
        return self._select(self._draw(key), key) if groups else None

    def pick_but(self, tried: Collection[Candidate], key: str) -> Candidate | None:
        """Return a candidate that isn't among those tried, rather one that is near and well; None where there is none.

        What has its share of the calls stays in it while there is another one of its kind.
        """
        left = [one for one in self._fit if one not in tried]
        if not left:
            return None
        kinds = {self._label(one.instance, self._split[0]) for one in tried} if self._split is not None else set()
        best = [one for one in left if not one.out] or left
        if self._split is not None:
            label = self._split[0]
            best = [one for one in best if self._label(one.instance, label) in kinds] or best
        return self._select(self._near(tuple(best)), key)

    def _matches(self, instance: Instance) -> bool:
        return all(self._label(instance, name) == value for name, value in self._match.items())

    def _share(self, well: tuple[Candidate, ...]) -> list[tuple[float, tuple[Candidate, ...]]]:
        if self._split is None:
            return [(1.0, well)] if well else []
        label, shares = self._split
        groups = [
            (share, tuple(one for one in well if self._label(one.instance, label) == value))
            for value, share in shares.items()
        ]
        return [(share, group) for share, group in groups if share and group]

    def _named(self, candidate: Candidate) -> bool:
        if self._split is None:
            return True
        label, shares = self._split
        return bool(shares.get(self._label(candidate.instance, label)))

    def _near(self, group: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        if not self._home:
            return group
        return tuple(one for one in group if self._label(one.instance, self._prefer) == self._home) or group

    def _draw(self, key: str) -> tuple[Candidate, ...]:
        # A key's calls stay with one share, so that a user doesn't meet two versions in turns.
        at = _fraction(key) if key else random()  # noqa: S311 - spreading load is no secret
        for bound, group in zip(self._bounds, self._groups, strict=True):
            if at < bound:
                return group
        return self._groups[-1]

    @staticmethod
    def _label(instance: Instance, name: str) -> str:
        return instance.version if name == VERSION else instance.metadata.get(name, "")


def _fraction(key: str) -> float:
    """Return a number from 0 up to 1 that is the same for the same key everywhere."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=7).digest()) / (1 << 56)
