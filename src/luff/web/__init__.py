"""
The server: experiments by HTTP, for programs and for people.

What must stay true:

1. A request names an experiment that the operator has put into the definitions;
   no document, file, host or secret ever comes with a request.
2. Every change is by somebody with a role for it, and leaves a row in the audit.
3. A page loads nothing from elsewhere and runs no script of its own text.
4. When the server goes, no fault of it stays; when it comes, what a dead one left goes first.
"""

from __future__ import annotations

from luff.web.app import create_app, warm_up
from luff.web.definitions import Definitions
from luff.web.rails import Rails
from luff.web.service import Service

__all__ = ["Definitions", "Rails", "Service", "create_app", "warm_up"]
