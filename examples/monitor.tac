"""haredis-monitor in a process of your own: twistd -noy examples/monitor.tac

The nodes are taken from the environment: NODES="10.0.0.1:6379 10.0.0.2:6379 10.0.0.3:6379", the
place to serve from HTTP (by default tcp:8405:interface=127.0.0.1). Other services can be given the
same parent.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import Application
from twisted.internet import reactor

from txharedis.monitor import DEFAULT_ENDPOINT
from txharedis.monitor.service import monitor_service

application: Any = Application("haredis-monitor")
monitor_service(
    os.environ.get("NODES", "127.0.0.1:6379").split(),
    reactor,
    http=os.environ.get("HTTP", DEFAULT_ENDPOINT),
).setServiceParent(application)
