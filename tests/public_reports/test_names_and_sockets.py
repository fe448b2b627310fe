"""A client of HTTP fails with an `AttributeError` from inside `http.client` where there is no network.

The kind: whatever asks for a name or a socket. It is an `OSError`, which programs expect and handle.
"""

from __future__ import annotations

import pytest

from wasm_sandbox import run_code

USES = {
    "http.client": "import http.client; http.client.HTTPConnection('example.com').request('GET', '/')",
    "HTTPS": "import http.client; http.client.HTTPSConnection('example.com').request('GET', '/')",
    "urllib": "import urllib.request; urllib.request.urlopen('http://example.com')",
    "a connection": "import socket; socket.create_connection(('example.com', 80))",
    "a connect": "import socket; socket.socket().connect(('93.184.215.14', 80))",
    "an old name": "import socket; socket.gethostbyname('example.com')",
    "a server": "import socket; socket.create_server(('127.0.0.1', 0))",
    "a datagram": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "mail": "import smtplib; smtplib.SMTP('localhost')",
    "FTP": "import ftplib; ftplib.FTP('localhost')",
    "POP": "import poplib; poplib.POP3('localhost')",
    "IMAP": "import imaplib; imaplib.IMAP4('localhost')",
    "XML-RPC": "import xmlrpc.client; xmlrpc.client.ServerProxy('http://localhost').f()",
    "asyncio": "import asyncio; asyncio.run(asyncio.open_connection('example.com', 80))",
    "logging": "import logging.handlers; logging.handlers.SocketHandler('localhost', 9).makeSocket()",
}


@pytest.mark.parametrize("use", USES)
def test_it_is_an_error_of_the_system(use: str) -> None:
    result = run_code(f"try:\n    {USES[use]}\nexcept OSError as error:\n    said = str(error)\nsaid")
    assert result.error is None
    assert result.value
