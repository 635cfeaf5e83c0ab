"""Certificates, keys and roots: files taken into an `ssl.SSLContext`, and told apart when one of them is wrong.

Every error names the setting and the file; none shows what is in it.
"""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import ConfigurationError
from ..tls import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Mapping


def load_pair(context: ssl.SSLContext, side: str, cert: str, key: str) -> Mapping[str, Any]:
    """Take our certificate and its key in; `side` is `server` or `client`. Return what the certificate says.

    Raises:
        ConfigurationError: a file can't be read, isn't what it should be, or the two don't belong together; the key
            has a passphrase; the certificate has expired, isn't valid yet or isn't meant for this side.
    """
    cert_setting, key_setting = f"{side}_tls_cert", f"{side}_tls_key"
    _check_readable(cert_setting, cert)
    _check_readable(key_setting, key)
    try:
        context.load_cert_chain(cert, key, partial(_refuse_passphrase, key_setting, key))
        return _examine(side, cert, key)
    except ssl.SSLCertVerificationError as error:
        raise ConfigurationError(f"{cert_setting}: {cert}: {error.verify_message}") from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(f"{key_setting}: {key} is not the key of the certificate in {cert}") from error
        _check_certificates(cert_setting, cert)
        raise ConfigurationError(
            f"{key_setting}: {key} with {cert} can't be used: {error.reason or 'no PEM private key in it'}"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{cert_setting}: {cert} or {key} can't be read: {error.strerror}") from error


def load_roots(context: ssl.SSLContext, setting: str, ca: str) -> None:
    """Trust the roots in a file, or the system's.

    Raises:
        ConfigurationError: the file can't be read or holds no certificate.
    """
    if ca == SYSTEM:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return
    _check_readable(setting, ca)
    _check_certificates(setting, ca, context)


def _check_readable(setting: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path} can't be read: {error.strerror}") from error


def _check_certificates(setting: str, path: str, context: ssl.SSLContext | None = None) -> None:
    try:
        (context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)).load_verify_locations(path)
    except OSError as error:  # which ssl.SSLError is
        raise ConfigurationError(f"{setting}: {path} holds no PEM certificate that can be used") from error


def _refuse_passphrase(setting: str, path: str) -> NoReturn:
    # Without this OpenSSL would ask the terminal for it, and wait.
    raise ConfigurationError(f"{setting}: {path} has a passphrase; `openssl pkey -in … -out …` makes a key without one")


def _examine(side: str, cert: str, key: str) -> Mapping[str, Any]:
    """Shake hands with ourselves, so that what a peer would object to is known before there is one."""
    serving, calling = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.check_hostname = False
    calling.verify_mode = ssl.CERT_NONE
    for context in (serving, calling):
        context.load_cert_chain(cert, key, partial(_refuse_passphrase, f"{side}_tls_key", key))
    judge = calling if side == "server" else serving
    judge.load_verify_locations(cert)
    judge.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    judge.verify_mode = ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = calling.wrap_bio(down, up)
    server = serving.wrap_bio(up, down, server_side=True)
    waiting = [caller, server]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    return (caller if side == "server" else server).getpeercert() or {}
