"""Keyspace: the keys of one server, their expiry, and who watches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["DATABASES", "Keyspace", "Members", "Snapshot", "Watcher"]

DATABASES = 64

#: All of a keyspace: the databases that hold keys, and the expiry of keys.
Snapshot = tuple[dict[int, dict[bytes, Any]], dict[tuple[int, bytes], int]]


class Members(dict[bytes, None]):
    """A set, in the order in which its members came."""


class Watcher(Protocol):
    """Who watches keys."""

    def spoil(self) -> None:
        """A watched key was changed."""


class Keyspace:
    """Values are bytes, dict (a hash), list or Members.

    now       the date by the server's clock, in milliseconds
    expired   called with the database and key that `find` met past its time; returns whether it is
              deleted for that (a replica leaves that to its master)
    obeying   True while a master's commands are applied: for them no key has expired
    """

    def __init__(self, now: Callable[[], int], expired: Callable[[int, bytes, bool], bool]) -> None:
        self._now = now
        self._expired = expired
        self.obeying = False
        self.dbs: list[dict[bytes, Any]] = [{} for _ in range(DATABASES)]
        self.expires: dict[tuple[int, bytes], int] = {}
        self.watched: dict[tuple[int, bytes], dict[Watcher, bool]] = {}

    def find(self, db: int, key: bytes, writing: bool = False) -> Any:
        """The value, None for none. A key that has expired is none, and may be deleted for it."""
        value = self.dbs[db].get(key)
        if value is not None and self.expires:
            deadline = self.expires.get((db, key))
            if deadline is not None and not self.obeying and self._now() > deadline:
                if self._expired(db, key, writing):
                    self.remove(db, key)
                return None
        return value

    def is_expired(self, db: int, key: bytes) -> bool:
        """Whether it is there, and past its time."""
        deadline = self.expires.get((db, key))
        return deadline is not None and self._now() > deadline

    def put(self, db: int, key: bytes, value: Any) -> None:
        """Set a value; the key's expiry stays."""
        self.dbs[db][key] = value
        if self.watched:
            self.touch(db, key)

    def remove(self, db: int, key: bytes) -> bool:
        there = self.dbs[db].pop(key, None) is not None
        if there:
            self.expires.pop((db, key), None)
            if self.watched:
                self.touch(db, key)
        return there

    def touch(self, db: int, key: bytes) -> None:
        """Tell who watches it that it was changed."""
        for watcher, was_expired in list(self.watched.get((db, key), {}).items()):
            if was_expired and key not in self.dbs[db]:
                # It was gone already for who looked.
                self.watched[db, key][watcher] = False
            else:
                watcher.spoil()

    def watch(self, db: int, key: bytes, watcher: Watcher) -> None:
        self.watched.setdefault((db, key), {}).setdefault(watcher, self.is_expired(db, key))

    def unwatch(self, db: int, key: bytes, watcher: Watcher) -> None:
        watchers = self.watched.get((db, key), {})
        watchers.pop(watcher, None)
        if not watchers:
            self.watched.pop((db, key), None)

    def lapsed(self, db: int, key: bytes, watcher: Watcher) -> bool:
        """Whether a watched key has expired since it was watched."""
        return not self.watched[db, key].get(watcher, False) and self.is_expired(db, key)

    # All of it.

    def clear(self, databases: range | None = None) -> None:
        self._replace({}, {}, range(DATABASES) if databases is None else databases)

    def snapshot(self) -> Snapshot:
        """A copy that nobody changes."""
        return _copied(
            {db: keys for db, keys in enumerate(self.dbs) if keys},
        ), dict(self.expires)

    def load(self, snapshot: Snapshot) -> None:
        """Have these keys and no others."""
        dbs, expires = snapshot
        self._replace(_copied(dbs), expires, range(DATABASES))

    def _replace(
        self,
        dbs: dict[int, dict[bytes, Any]],
        expires: dict[tuple[int, bytes], int],
        databases: range,
    ) -> None:
        before = {db: self.dbs[db] for db in databases}
        for db in databases:
            self.dbs[db] = dbs.get(db, {})
        kept = {place: at for place, at in self.expires.items() if place[0] not in databases}
        self.expires = {**kept, **expires}
        for db, key in list(self.watched):
            if db in before and (key in before[db] or key in self.dbs[db]):
                self.touch(db, key)


def _copied(dbs: dict[int, dict[bytes, Any]]) -> dict[int, dict[bytes, Any]]:
    return {
        db: {
            key: value if value.__class__ is bytes else value.__class__(value)
            for key, value in keys.items()
        }
        for db, keys in dbs.items()
    }
