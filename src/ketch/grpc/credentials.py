"""Credentials: the `ssl.SSLContext` for new connections, made anew when its files change.

What HTTP/2 demands of TLS is set here (RFC 9113 section 9.2): version 1.2 or later; under 1.2 only ciphers with
ephemeral keys and authenticated encryption, none of appendix A's; no compression, no renegotiation; `h2` by ALPN.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigurationError
from ..tls import SYSTEM
from .certificates import load_pair, load_roots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..tls import ClientTls, ServerTls

log = logging.getLogger("ketch.grpc")

ALPN: Final = "h2"
#: For TLS 1.2; all suites of TLS 1.3 will do.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
#: Seconds between two looks at the files, however many connections are made.
_LOOK: Final = 1.0


class Credentials(ABC):
    """One side's files, and the context made of them.

    Files that change are taken in with the next connection, a second later at most. Such as can't be used, because
    they are broken or only one of a pair was written yet, leave the old ones in use; the log has an error, once.
    """

    def __init__(self, files: Iterable[str]) -> None:
        if SYSTEM in (named := set(files)):
            # The system's roots are files as well, as a rule.
            named = (named - {SYSTEM}) | {ssl.get_default_verify_paths().cafile or ""}
        self._files = sorted(named - {""})
        self._context: ssl.SSLContext | None = None
        self._state: object = None
        self._looked = 0.0

    def load(self) -> None:
        """Read the files, unless that was done.

        Raises:
            ConfigurationError: they can't be used; the message names the setting and the file.
        """
        if self._context is None:
            state = self._look()
            self._context = self._make()
            self._state, self._looked = state, time.monotonic()

    def current(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        Raises:
            ConfigurationError: as `load`, which was not called.
        """
        now = time.monotonic()
        if self._context is None:
            self.load()
        elif now - self._looked >= _LOOK:
            self._looked = now
            self._reload()
        assert self._context is not None  # noqa: S101 - loaded above
        return self._context

    def _reload(self) -> None:
        state = self._look()  # before reading: what changes meanwhile is seen the next time
        if state == self._state:
            return
        self._state = state
        try:
            self._context = self._make()
        except ConfigurationError as error:
            log.error("TLS files have changed and can't be used, the ones before stay in use: %s", error)  # noqa: TRY400 - the sentence says it all

    def _look(self) -> object:
        return [_fingerprint(path) for path in self._files]

    @abstractmethod
    def _make(self) -> ssl.SSLContext:
        """Read the files."""


class ServerCredentials(Credentials):
    """For connections that are accepted."""

    def __init__(self, tls: ServerTls) -> None:
        super().__init__((tls.cert, tls.key, tls.client_ca))
        self._tls = tls

    def _make(self) -> ssl.SSLContext:
        tls = self._tls
        context = _restricted(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        certificate = load_pair(context, "server", tls.cert, tls.key)
        if tls.client_ca:
            load_roots(context, "server_tls_client_ca", tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        _say("serving", tls.cert, certificate)
        return context


class ClientCredentials(Credentials):
    """For connections that are made.

    Attributes:
        server_name: what servers' certificates must be valid for, "" for the address.
        advice: for those whose connection is closed without a word.
    """

    def __init__(self, tls: ClientTls) -> None:
        super().__init__((tls.ca, tls.cert, tls.key))
        self.server_name = tls.server_name
        self.advice = (
            "perhaps it does not accept our certificate"
            if tls.cert
            else "if it demands a certificate, set client_tls_cert"
        )
        self._tls = tls

    def _make(self) -> ssl.SSLContext:
        tls = self._tls
        context = _restricted(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # verifies chain and name
        load_roots(context, "client_tls_ca", tls.ca)
        if tls.cert:
            _say("calling", tls.cert, load_pair(context, "client", tls.cert, tls.key))
        return context


def _restricted(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols([ALPN])
    return context


def _fingerprint(path: str) -> bytes | int | None:
    # Not its times: two changes within one tick of the file system's clock would look like one.
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError as error:
        return error.errno


def _say(doing: str, cert: str, certificate: Mapping[str, Any]) -> None:
    log.info("TLS: %s with %s, valid until %s", doing, cert, certificate.get("notAfter", "?"))
