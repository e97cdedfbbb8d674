"""Publish and subscribe with one client: twistd -noy examples/pubsub.tac

The nodes are taken from the environment: NODES="10.0.0.1:6379 10.0.0.2:6379 10.0.0.3:6379".
Kill any one of the servers while it runs.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import Application, MultiService
from twisted.logger import Logger

from txharedis import FailoverService, HAClient, Message, SubscriptionGap

log = Logger(namespace="pubsub")


class News(MultiService):
    """Says each second what number comes next, and logs what it hears."""

    def __init__(self, client: HAClient) -> None:
        super().__init__()
        self._client = client
        self._number = 0
        TimerService(1.0, self._publish).setServiceParent(self)

    def startService(self) -> None:
        super().startService()
        heard = self._client.subscribe("news", self._heard, self._missed)
        heard.addErrback(lambda failure: log.failure("no subscription", failure))

    def _publish(self) -> None:
        self._number += 1
        sent = self._client.publish("news", f"number {self._number}")
        # With one node it is lost when that dies at this moment; there is another number soon.
        sent.addErrback(lambda failure: log.warn("{error}", error=failure.getErrorMessage()))

    def _heard(self, message: Message) -> None:
        log.info("{data} from {node}", data=message.data, node=message.node)

    def _missed(self, gap: SubscriptionGap) -> None:
        log.warn("{seconds:.2f} s may be missing", seconds=gap.until - gap.since)


application: Any = Application("pubsub")
redis = FailoverService(os.environ.get("NODES", "127.0.0.1:6379").split())
redis.setServiceParent(application)
News(redis.client).setServiceParent(application)
