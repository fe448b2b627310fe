"""The way out to the network: what a guest sends and gets, read and checked on the host. No sockets.

May import: values.
Imported by: sandbox.
"""

from __future__ import annotations
