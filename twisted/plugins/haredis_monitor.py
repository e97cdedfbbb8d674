"""`twistd haredis-monitor`: found here by Twisted, loaded from txharedis when it is asked for."""

from twisted.application.service import ServiceMaker

haredis_monitor = ServiceMaker(
    "haredis-monitor",
    "txharedis.monitor.plugin",
    "Watches a group of Redis servers, shows it on a page, and fails over when no client is there.",
    "haredis-monitor",
)
