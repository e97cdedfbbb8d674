"""haredis-monitor: a group of servers, watched, shown, and failed over when no client is there."""

DEFAULT_ENDPOINT = "tcp:8405:interface=127.0.0.1"
"""Where it serves, as Twisted writes endpoints."""
