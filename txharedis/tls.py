"""TLS: what to trust and to show, what a failed handshake means. Twisted and pyOpenSSL do the rest.

pyOpenSSL is imported when TLS is asked for, and not before: plain clients need not have it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from txharedis.errors import InvalidOption

__all__ = ["TlsContexts", "refusal", "speaks_tls"]

_FILETYPE_PEM = 1  # of OpenSSL, which has no other numbers for it
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class TlsContexts:
    """A context for each host, made once: what TLSMemoryBIOFactory takes.

    The arguments are the options of these names. Whatever cannot be used is an InvalidOption.
    """

    def __init__(
        self, tls: Any, ca_file: str | None, cert_file: str | None, key_file: str | None
    ) -> None:
        try:
            import OpenSSL.crypto
            import OpenSSL.SSL
            import service_identity  # noqa: F401  (Twisted verifies host names with it)
            from twisted.internet import ssl
        except ImportError:
            raise InvalidOption('tls needs pyOpenSSL: pip install "txharedis[tls]"') from None
        self._ssl: Any = ssl
        self._errors = (OpenSSL.SSL.Error, OpenSSL.crypto.Error, ValueError)
        trust_root_of: Any = ssl.trustRootFromCertificates
        self._made: dict[str, object] = {}
        self._given = None if isinstance(tls, bool) else tls
        self._trust: Any = None
        self._identity: dict[str, Any] = {}
        if isinstance(tls, bool):
            if key_file and not cert_file:
                raise InvalidOption("tls_key_file needs tls_cert_file")
            if ca_file:
                authorities = self._certificates("tls_ca_file", ca_file)
                self._trust = trust_root_of(authorities)
            if cert_file:
                self._identity = self._identity_in(cert_file, key_file or cert_file)
        elif ca_file or cert_file or key_file:
            raise InvalidOption("tls: an object of your own brings its files itself")
        elif not (self._is_context(tls) or callable(tls)):
            shown = tls if tls is None else f"<{type(tls).__name__}>"
            raise InvalidOption(
                f"tls={shown} is neither True or False, nor a contextFactory of Twisted, nor a "
                "function that returns one"
            )

    def of(self, host: str) -> object:
        """The context for this host; an InvalidOption when it has none."""
        if host not in self._made:
            self._made[host] = self._make(host)
        return self._made[host]

    def _make(self, host: str) -> object:
        if self._given is None:
            try:
                return self._ssl.optionsForClientTLS(
                    host, self._trust, extraCertificateOptions=self._identity
                )
            except Exception as error:
                # idna and OpenSSL each have their own.
                raise InvalidOption(f"tls: {host!r} cannot be verified: {error}") from None
        if self._is_context(self._given):
            return self._given
        made: object = self._given(host)
        if not self._is_context(made):
            raise InvalidOption(f"tls returned no contextFactory of Twisted for {host!r}")
        return made

    @staticmethod
    def _is_context(thing: object) -> bool:
        return hasattr(thing, "clientConnectionForTLS") or hasattr(thing, "getContext")

    def _certificates(self, option: str, path: str) -> list[Any]:
        found = _PEM.findall(_read(option, path))
        try:
            certificates = [self._ssl.Certificate.loadPEM(pem) for pem in found]
        except self._errors:
            raise InvalidOption(f"{option}={path!r} holds a bad certificate") from None
        if not certificates:
            raise InvalidOption(f"{option}={path!r} holds no certificate in PEM")
        return certificates

    def _identity_in(self, cert_file: str, key_file: str) -> dict[str, Any]:
        own, *chain = self._certificates("tls_cert_file", cert_file)
        key = _read("tls_key_file", key_file)
        if b"ENCRYPTED" in key:  # OpenSSL would ask for it on the terminal
            raise InvalidOption(
                f"tls_key_file={key_file!r} has a passphrase: give a context as tls=..."
            )
        try:
            private = self._ssl.KeyPair.load(key, _FILETYPE_PEM).original
            identity = {"privateKey": private, "certificate": own.original}
            self._ssl.CertificateOptions(**identity).getContext()
        except self._errors:
            raise InvalidOption(
                f"tls_key_file={key_file!r} holds no key, or not that of tls_cert_file"
            ) from None
        if chain:
            identity["extraCertChain"] = [link.original for link in chain]
        return identity


def _read(option: str, path: str) -> bytes:
    if "-----BEGIN" in path:  # not to be repeated: it may be a key
        raise InvalidOption(f"{option} is the path of a PEM file, not what stands in it")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidOption(f"{option}={path!r}: {error.strerror}") from None


# What OpenSSL says, and what it means here.
_MEANINGS = {
    "wrong version number": "the node speaks no TLS on this port",
    "packet length too long": "the node speaks no TLS on this port",
    "alert certificate required": "the node wants a client certificate (tls_cert_file)",
    "alert handshake failure": "the node wants a client certificate, or other ciphers",
    "alert unknown ca": "the node does not trust our certificate",
    "alert bad certificate": "the node does not take our certificate",
}


def refusal(error: BaseException | None) -> str:
    """Why there was no agreement on TLS, beginning with "TLS: "; "" for any other error."""
    openssl = sys.modules.get("OpenSSL.SSL")
    if openssl is not None and isinstance(error, openssl.Error):
        stack = error.args[0] if error.args and isinstance(error.args[0], list) else []
        said = "; ".join(str(entry[-1]) for entry in stack)
        if not said:
            return ""  # the connection ended, and TLS has nothing to say of it
        meant = [meaning for words, meaning in _MEANINGS.items() if words in said]
        return f"TLS: {said}" + (f" ({meant[0]})" if meant else "")
    identity = sys.modules.get("service_identity")
    if identity is not None and isinstance(error, identity.VerificationError):
        return "TLS: certificate verify failed: it is a certificate for another host name"
    return ""


def speaks_tls(data: bytes) -> bool:
    """Whether these bytes are an alert of a server that expected TLS."""
    return data.startswith(b"\x15\x03")
