"""
The signature of a webhook: HMAC-SHA256 over the time and the body, so that a receiver knows who sent it and when.

``x-luff-timestamp`` is Unix seconds; ``x-luff-signature`` is ``v1=`` and the
hex digest over ``<timestamp>.<body>``, the body byte for byte as it was sent.
"""

from __future__ import annotations

import hashlib
import hmac

__all__ = ["SIGNATURE_HEADER", "TIMESTAMP_HEADER", "signature"]

SIGNATURE_HEADER = "x-luff-signature"
TIMESTAMP_HEADER = "x-luff-timestamp"
VERSION = "v1"


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return the value of `SIGNATURE_HEADER` for *body*, sent at *timestamp* (Unix seconds)."""
    signed = f"{timestamp}.".encode() + body
    return f"{VERSION}={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
