"""The options of security: who we are to each node, and what TLS trusts and shows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import ssl
from twisted.internet.protocol import ClientFactory, Protocol

from tests.certificates import Authority
from tests.unit.fakes import FakeReactor
from txharedis.errors import InvalidOption
from txharedis.factory import dial
from txharedis.failover import FailoverService
from txharedis.options import Options, parse_nodes
from txharedis.protocol import greeting
from txharedis.tls import TlsContexts, refusal, speaks_tls
from txharedis.topology import Address

# Twisted gives pyOpenSSL a client's certificate in the form that was its own.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

SECRET = "s3cr3t"
NODES = ["a:1", "b:2"]


def refused(nodes: Any = NODES, **options: Any) -> str:
    """The text of the error that these options make, without a secret."""
    with pytest.raises(InvalidOption) as caught:
        FailoverService(nodes, FakeReactor(), **options)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    return str(caught.value)


# Passwords


def greetings(**options: Any) -> list[list[Any]]:
    given = Options(**options)
    return [list(greeting(given, 0, Address.parse(node))[0]) for node in NODES]


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, [["SELECT", 0]] * 2),
        ({"password": "p"}, [["AUTH", "p"]] * 2),
        ({"passwords": {"b:2": "q"}}, [["SELECT", 0], ["AUTH", "q"]]),
        ({"password": "p", "passwords": {("b", 2): "q"}}, [["AUTH", "p"], ["AUTH", "q"]]),
        (
            {"username": "u", "password": "p", "passwords": {"b:2": "q"}},
            [["AUTH", "u", "p"], ["AUTH", "u", "q"]],
        ),
    ],
)
def test_each_node_is_greeted_with_its_own_password(
    options: dict[str, Any], first: list[list[Any]]
) -> None:
    assert greetings(**options) == first


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"passwords": {"c:3": SECRET}}, "c:3, which is not one of the nodes"),
        ({"passwords": {"a:1": SECRET, ("a", 1): SECRET}}, "a:1 twice"),
        ({"passwords": {"a:x": SECRET}}, "'a:x'"),
        ({"passwords": {f"{SECRET}@a:1": "x"}}, "***@a:1"),
        ({"passwords": {"a:1": SECRET.encode()}}, "a:1"),
        ({"passwords": SECRET}, "passwords=(hidden)"),
        ({"passwords": [SECRET]}, "passwords=(hidden)"),
        ({"username": "u", "passwords": {"a:1": SECRET}}, "needs a password for b:2"),
        ({"username": "u"}, "needs a password"),
        # As os.environ gives bytes that are no UTF-8.
        ({"password": SECRET + "\udcff"}, "password=(hidden) cannot be sent as UTF-8"),
        ({"passwords": {"a:1": SECRET + "\udcff"}}, "passwords has for a:1 what cannot be sent"),
        ({"username": "\udcff", "password": SECRET}, "username='\\udcff' cannot be sent as UTF-8"),
        ({"elect": "no"}, "elect='no'"),
    ],
)
def test_passwords_that_make_no_sense_are_named(options: dict[str, Any], named: str) -> None:
    assert named in refused(**options)


def test_no_secret_is_in_a_repr() -> None:
    service = FailoverService(NODES, FakeReactor(), password=SECRET, passwords={"a:1": SECRET})
    for thing in (service, service.options, service.client, service._group, *service._group):
        assert SECRET not in repr(thing)
        assert SECRET not in str(thing)


@pytest.mark.parametrize(
    "nodes",
    [
        f"redis://a:1/0?password={SECRET}",
        f"redis://a:1?addr=b:2&username=u&password={SECRET}&timeout=3",
        f"redis://:{SECRET}@a:1".encode(),
        [f"redis://:{SECRET}@a:1".encode()],
        [f"redis://a:1/0?password={SECRET}"],
        [f"redis://:a?{SECRET}@a:1"],
        [(f"u:{SECRET}@a", 1)],
        [{"host": "a", "password": SECRET}],
    ],
)
def test_nodes_that_make_no_sense_are_named_without_what_may_be_a_password(nodes: Any) -> None:
    assert "node" in refused(nodes) or "***" in refused(nodes)
    refused(adopt=nodes)


def test_a_key_given_instead_of_its_file_is_not_repeated(tmp_path: Path) -> None:
    key = f"-----BEGIN PRIVATE KEY-----\n{SECRET}"
    assert "tls_cert_file is the path" in refused(tls_cert_file=key)
    cert_file, _ = Authority(tmp_path).issue("client")
    assert "tls_key_file is the path" in refused(tls_cert_file=cert_file, tls_key_file=key)


# Unix sockets


def test_a_unix_socket_is_an_address() -> None:
    address = Address.parse("unix:/run/redis@1.sock")
    assert address == Address("/run/redis@1.sock", 0)
    assert address.path == "/run/redis@1.sock"
    assert str(address) == "unix:/run/redis@1.sock"
    assert Address.parse(str(address)) == address
    assert Address("a", 1).path == ""
    assert Address.parse("unix:1") == Address("unix", 1)  # a host of that name


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("unix:///run/r.sock", {}),
        ("unix:///run/r.sock?db=3", {"db": 3}),
        (f"unix://:{SECRET}@/run/r.sock", {"password": SECRET}),
        (f"unix://me:{SECRET}@/run/r.sock", {"username": "me", "password": SECRET}),
        ("unix:///run/r%2Esock", {}),
    ],
)
def test_urls_of_unix_sockets(url: str, options: dict[str, Any]) -> None:
    parsed = parse_nodes(url)
    assert parsed.addresses == (Address("/run/r.sock", 0),)
    assert parsed.options == options


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ("unix:relative", "unix:relative"),
        ("unix://relative", "names no path"),
        ("unix:///", "names no path"),
        ("unix:///run/r.sock?addr=a", "'addr'"),
        ("unix:///run/r.sock?db=x", "'x'"),
        (f"unix://{SECRET}@/run/r.sock", "without a password"),
        (["unix:/run/r.sock", "a:1"], "can only be the one node"),
        (["unix:/run/r.sock", "unix:/run/s.sock"], "can only be the one node"),
    ],
)
def test_unix_sockets_that_make_no_sense_are_named(nodes: Any, named: str) -> None:
    assert named in refused(nodes)


def test_no_tls_goes_over_a_unix_socket() -> None:
    assert "unix:/run/r.sock" in refused("unix:/run/r.sock", tls=True)


def test_a_unix_socket_is_dialled_as_one() -> None:
    dialled: list[Any] = []

    class Reactor(FakeReactor):
        def connectUNIX(self, path: str, factory: Any, timeout: float) -> None:
            dialled.append((path, factory, timeout))

    factory = object()
    dial(Reactor(), Address("/run/r.sock", 0), factory, Options(), 2.0)
    assert dialled == [("/run/r.sock", factory, 2.0)]


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_rediss_means_tls() -> None:
    assert parse_nodes("rediss://a").options == {"tls": True}
    assert parse_nodes("rediss://:p@a/2?addr=b").options == {"tls": True, "password": "p", "db": 2}


def context_of(host: str, **options: Any) -> Any:
    return Options(**options).tls_context(host)


@pytest.mark.parametrize(
    ("host", "is_named"), [("redis.example", True), ("10.0.0.1", False), ("::1", False)]
)
def test_host_names_are_sent_in_the_greeting_and_addresses_are_not(
    host: str, is_named: bool
) -> None:
    reactor = FakeReactor()
    dial(reactor, Address(host, 1), Client(), Options(tls=True), 2.0)
    connector = reactor.dial.connector
    assert (connector.host, connector.port) == (host, 1)
    reactor.dial.accept()
    reactor.advance(1.0)
    hello = reactor.dial.written
    assert hello.startswith(b"\x16\x03")
    assert (host.encode() in hello) is is_named
    reactor.dial.lose()


class Client(ClientFactory):
    noisy = False
    protocol = Protocol


def test_plain_clients_have_no_context() -> None:
    assert context_of("a") is None


def test_files_mean_tls(authority: Authority) -> None:
    cert_file, key_file = authority.issue("client")
    assert context_of("a", tls_ca_file=str(authority.file)) is not None
    assert context_of("a", tls_cert_file=cert_file, tls_key_file=key_file) is not None


def test_a_key_may_be_in_the_file_of_its_certificate(authority: Authority, tmp_path: Path) -> None:
    cert_file, key_file = authority.issue("client")
    both = tmp_path / "both.pem"
    both.write_bytes(Path(cert_file).read_bytes() + Path(key_file).read_bytes())
    assert context_of("a", tls_cert_file=str(both)) is not None


def test_a_chain_of_certificates_is_shown_whole(authority: Authority, tmp_path: Path) -> None:
    cert_file, key_file = authority.issue("client")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(Path(cert_file).read_bytes() + authority.file.read_bytes())
    contexts = TlsContexts(True, None, str(chain), key_file)
    assert len(contexts._identity["extraCertChain"]) == 1


def test_an_object_is_used_as_it_is_for_all_hosts() -> None:
    for given in (ssl.CertificateOptions(), ssl.optionsForClientTLS("elsewhere")):
        options = Options(tls=given)
        assert options.tls_context("a") is options.tls_context("b") is given


def test_a_function_is_asked_once_for_each_host() -> None:
    asked: list[str] = []

    def context(host: str) -> Any:
        asked.append(host)
        return ssl.optionsForClientTLS(host)

    options = Options(tls=context)
    assert options.tls_context("a") is options.tls_context("a") is not options.tls_context("b")
    assert asked == ["a", "b"]


def test_tls_that_makes_no_sense_is_named(authority: Authority, tmp_path: Path) -> None:
    cert_file, key_file = authority.issue("client")
    _, other_key = authority.issue("other")
    none, locked, bad = (tmp_path / name for name in ("none.pem", "locked.pem", "bad.pem"))
    none.write_text("nothing")
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    bad.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
    for options, named in [
        ({"tls": "yes"}, "tls=<str>"),
        ({"tls": 1}, "tls=<int>"),
        ({"tls": lambda host: None}, "no contextFactory of Twisted for 'a'"),
        ({"tls_ca_file": "/nowhere.pem"}, "tls_ca_file='/nowhere.pem': No such file"),
        ({"tls_ca_file": str(none)}, "no certificate"),
        ({"tls_ca_file": str(bad)}, "bad certificate"),
        ({"tls_ca_file": 1}, "tls_ca_file=1"),
        ({"tls_key_file": key_file}, "needs tls_cert_file"),
        ({"tls_cert_file": cert_file}, "tls_key_file"),
        ({"tls_cert_file": cert_file, "tls_key_file": other_key}, "not that of tls_cert_file"),
        ({"tls_cert_file": cert_file, "tls_key_file": str(none)}, "holds no key"),
        ({"tls_cert_file": cert_file, "tls_key_file": str(locked)}, "passphrase"),
        ({"tls": ssl.CertificateOptions(), "tls_ca_file": str(authority.file)}, "of your own"),
    ]:
        assert named in refused(**options), options


def test_a_host_that_cannot_be_verified_is_named() -> None:
    assert f"tls: {'x' * 64!r} cannot be verified" in refused(["x" * 64], tls=True)


def test_without_pyopenssl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("OpenSSL", "service_identity"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            assert 'pip install "txharedis[tls]"' in refused(tls=True)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("certificate verify failed", "TLS: certificate verify failed"),
        ("wrong version number", "TLS: wrong version number (the node speaks no TLS on this port)"),
        (
            "tlsv13 alert certificate required",
            "TLS: tlsv13 alert certificate required "
            "(the node wants a client certificate (tls_cert_file))",
        ),
    ],
)
def test_what_a_failed_handshake_means(said: str, told: str) -> None:
    from OpenSSL.SSL import Error

    assert refusal(Error([("SSL routines", "", said)])) == told


def test_other_errors_say_nothing_of_tls() -> None:
    from OpenSSL.SSL import Error, SysCallError
    from twisted.internet.error import ConnectionLost

    for error in (ConnectionLost(), Error(), Error([]), SysCallError(-1, "EOF"), None):
        assert refusal(error) == ""


def test_an_alert_is_told_from_a_reply() -> None:
    assert speaks_tls(b"\x15\x03\x01\x00\x02\x02F")
    assert not speaks_tls(b"+OK\r\n")
    assert not speaks_tls(b"")
