"""Explanation: what a failed TLS handshake means, in words that say what to do."""

from __future__ import annotations

import ssl
from typing import Final

_PLAIN: Final = "it does not speak TLS, but something else, such as plain text"
_OLD: Final = "it speaks no version of TLS from 1.2 on"
_CIPHER: Final = "it has no cipher that HTTP/2 allows (RFC 9113 section 9.2.2)"
_UNTRUSTED: Final = "it does not trust who signed our certificate"
_REJECTED: Final = "it does not accept our certificate"

#: OpenSSL's names, those with ALERT in them told by the peer (RFC 8446 section 6.2).
_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it presents no certificate, which server_tls_client_ca demands",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it demands a certificate of ours: set client_tls_cert",
    "TLSV1_ALERT_UNKNOWN_CA": _UNTRUSTED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REJECTED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _REJECTED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REJECTED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it says that our certificate is revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it found no way to go on; it may demand a certificate of ours, or other ciphers",
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "UNSUPPORTED_PROTOCOL": _OLD,
    "VERSION_TOO_LOW": _OLD,
    "NO_SHARED_CIPHER": _CIPHER,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _CIPHER,
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it does not speak h2 by ALPN; is it a gRPC server?",
    "WRONG_VERSION_NUMBER": _PLAIN,
    "HTTP_REQUEST": _PLAIN,
    "PACKET_LENGTH_TOO_LONG": _PLAIN,
    "RECORD_LAYER_FAILURE": _PLAIN,
}

#: What to do about a certificate of the peer's that was not accepted, by what it says.
_HINTS: Final = {
    "mismatch": "; a name that it is valid for can be given as client_tls_server_name",
    "issuer": "; is its root in {ca}?",
    "self-signed": "; is its root in {ca}?",
}


def explain(error: ssl.SSLError, *, server: bool) -> str:
    """Return what went wrong in a handshake; `server` is which side we are."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        ca = "server_tls_client_ca" if server else "client_tls_ca"
        hint = next((hint for word, hint in _HINTS.items() if word in said), "")
        return f"its certificate is not accepted: {said}{hint.format(ca=ca)}"
    reason = error.reason or "unknown error"
    return _REASONS.get(reason) or reason.lower().replace("_", " ")
