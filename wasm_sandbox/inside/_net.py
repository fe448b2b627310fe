"""The bottom of `socket` and `ssl`, and an event loop that waits for connections. Imported once before the snapshot.

Only `_socket.socket`, its functions of names, and `_ssl` are ours: the standard library above them is CPython's own.
A connection is the host's: it looks the name up, connects, and speaks TLS; here is plain text. So an "address" is the
name itself, certificates are always verified, and what is set about TLS changes nothing. Without a network the host
is asked once, by the first connect, which is refused.
"""

import _socket
import asyncio
import builtins
import collections.abc
import contextlib
import errno
import gc
import importlib
import json
import os
import selectors
import struct
import sys
import time
import types

import _sandbox_live

OPEN, CONNECT, STATUS, START_TLS, SHUTDOWN, POLL = range(32, 38)
DONE, REFUSED = 16, 17
READABLE, WRITABLE = 1, 2
FIRST_SOCKET = 512
FOREVER = 1 << 62
UNTIL_IDLE = -2
"""Time to wait for connections: until none of them waits for its server."""
MOST_SENT, MOST_RECEIVED = 256 << 10, 1 << 20
COLLECTED_BYTES = 32 << 20
"""Bytes received after which garbage is collected: Python counts objects, and a large answer is few of them. httpx
keeps each answer in a cycle with its stream, and a dozen of 16 MB fill a guest before Python would look."""
NO_NETWORK = "this run has no network"

_TIME, _ENTRY, _NUMBER, _PORT, _POLL = (struct.Struct(form) for form in ("<q", "<IB", "<I", "<H", "<?q"))
_MARK = b"\x16wasm-sandbox-tls\x00"
"""What an `SSLObject` writes to begin TLS, and what comes before the answer."""


class _State:
    timeout = None
    generation = 0
    """Of the connections: those of a session that was forked or loaded are another one's."""
    last = 0
    """Descriptor that was given last: the next one is another, which nothing here still stands for."""
    received = 0
    """Bytes since garbage was collected for them."""


def _ask(op, fd=0, payload=b""):
    """Ask the host; raises what it says went wrong."""
    try:
        kind, _, data = _sandbox_live._exchange(op, fd, payload)
    except OSError:
        raise PermissionError(errno.EACCES, NO_NETWORK) from None
    if kind == DONE:
        return data
    if kind != REFUSED:  # there are host functions, and no network
        raise PermissionError(errno.EACCES, NO_NETWORK)
    (number,) = struct.unpack_from("<i", data)
    name, _, message = data[4:].decode().partition("\0")
    if name == "gaierror":
        raise _socket.gaierror(_socket.EAI_NONAME, message)
    if name.startswith("SSL"):
        raise _ssl_error(name, message)
    raise OSError(number, message)


def _microseconds(timeout):
    return -1 if timeout is None else max(0, int(timeout * 1e6))


def _place(timeout):
    """A time as the offset of a `pread`."""
    return FOREVER if timeout is None else min(max(0, int(timeout * 1e6)), FOREVER - 1)


def forget():
    """Take all connections for ended: the session that had them is another one."""
    _State.generation += 1


# --- _socket --------------------------------------------------------------------------------------------


class Socket:
    """Stream socket, as `_socket.socket`; it is opened by its first connect."""

    __slots__ = ("_family", "_fd", "_generation", "_has_ended", "_peer", "_proto", "_timeout", "_type")

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        self._family = _socket.AF_INET if family == -1 else int(family)
        self._type = int(_socket.SOCK_STREAM) if type == -1 else int(type)
        self._proto = 0 if proto == -1 else proto
        self._timeout, self._peer, self._fd, self._generation = _State.timeout, None, -1, _State.generation
        self._has_ended = False
        if fileno is not None:
            self._fd = int(fileno)
            self._peer = _peers.get(self._fd)
        elif self._type & ~_FLAGS != _socket.SOCK_STREAM or self._family not in (_socket.AF_INET, _socket.AF_INET6):
            raise OSError(errno.EPROTONOSUPPORT, "there are only stream sockets, of TCP, in the sandbox")

    family = property(lambda self: self._family)
    type = property(lambda self: self._type)
    proto = property(lambda self: self._proto)
    timeout = property(lambda self: self._timeout)

    def __del__(self):
        if self._fd >= 0:
            with contextlib.suppress(Exception):
                self._release()

    def _number(self):
        """Descriptor, for an operation on a connection."""
        if self._has_ended:
            raise OSError(errno.EBADF, "the socket is closed")
        if self._fd < 0:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        if self._generation != _State.generation:
            raise ConnectionResetError(errno.ECONNRESET, "the connection has ended with the session that had it")
        return self._fd

    def _opened(self):
        if self._fd < 0 and not self._has_ended:
            (self._fd,) = _NUMBER.unpack(_ask(OPEN, _State.last))
            _State.last = self._fd
            self._generation = _State.generation
        return self._number()

    def fileno(self):
        if self._fd < 0 and not self._has_ended:
            with contextlib.suppress(OSError):  # no network: its connect says so
                self._opened()
        return self._fd

    def detach(self):
        fd, self._fd, self._has_ended = self._fd, -1, True
        return fd

    def close(self):
        self._release()

    def _release(self):
        fd, self._fd, self._has_ended = self._fd, -1, True
        if fd >= FIRST_SOCKET and self._generation == _State.generation:
            _peers.pop(fd, None)
            with contextlib.suppress(OSError):
                os.close(fd)

    def settimeout(self, timeout):
        if timeout is not None and timeout < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if timeout is None else float(timeout)

    def gettimeout(self):
        return self._timeout

    def setblocking(self, flag):
        self._timeout = None if flag else 0.0

    def getblocking(self):
        return self._timeout != 0.0

    def setsockopt(self, *_arguments):
        """Do nothing: the host sets what a connection needs."""

    def getsockopt(self, level, option, size=0):
        if option == _socket.SO_ERROR and level == _socket.SOL_SOCKET and self._fd >= 0:
            try:
                self._wait_connected(0.0)
            except OSError as error:
                return error.errno if (error.errno or 0) > 0 else errno.EHOSTUNREACH
        value = self._type if option == _socket.SO_TYPE and level == _socket.SOL_SOCKET else 0
        return value.to_bytes(4, "little")[:size] if size else value

    def connect(self, address):
        host, port = _host_and_port(address)
        if self._peer is not None:
            raise OSError(errno.EISCONN, "the socket is connected")
        fd = self._opened()
        _ask(CONNECT, fd, _PORT.pack(port) + host.encode())
        self._peer = _peers[fd] = host, port
        if self._timeout == 0.0:
            raise BlockingIOError(errno.EINPROGRESS, "the connection is under way")
        self._wait_connected(self._timeout)

    def connect_ex(self, address):
        try:
            self.connect(address)
        except _socket.gaierror:
            raise
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _wait_connected(self, timeout):
        """Wait until nothing is under way; what it says of TLS."""
        try:
            return json.loads(_ask(STATUS, self._number(), _TIME.pack(_microseconds(timeout))) or b"null")
        except OSError as error:
            if error.errno == errno.EINPROGRESS and timeout:
                raise TimeoutError("timed out") from None
            raise

    def bind(self, *_arguments):
        raise OSError(errno.ENOTSUP, "there are no listening sockets in the sandbox")

    listen = _accept = bind

    def getpeername(self):
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        return self._peer

    def getsockname(self):
        return "0.0.0.0", 0

    def recv(self, size, flags=0):
        if size < 0:
            raise ValueError("negative buffersize in recv")
        if flags & _socket.MSG_PEEK:
            raise OSError(errno.ENOTSUP, "MSG_PEEK is not there in the sandbox")
        return _received(self._number(), size, self._timeout, "timed out")

    def recv_into(self, buffer, nbytes=0, flags=0):
        with memoryview(buffer) as view, view.cast("B") as room:
            data = self.recv(nbytes or len(room), flags)
            room[: len(data)] = data
        return len(data)

    def recvfrom(self, size, flags=0):
        return self.recv(size, flags), self._peer

    def recvfrom_into(self, buffer, nbytes=0, flags=0):
        return self.recv_into(buffer, nbytes, flags), self._peer

    def send(self, data, flags=0):
        fd = self._number()
        with memoryview(data) as view, view.cast("B") as whole:
            part = bytes(whole[:MOST_SENT])
        if part.startswith(_MARK):  # an SSLObject above wants TLS from here on
            end = len(_MARK) + _NUMBER.size
            end += _NUMBER.unpack_from(part, len(_MARK))[0]
            _ask(START_TLS, fd, part[len(_MARK) + _NUMBER.size : end])
            return end
        return _sent(fd, part, self._timeout, "timed out")

    def sendall(self, data, flags=0):
        end = None if self._timeout is None else time.monotonic() + self._timeout
        with memoryview(data) as view, view.cast("B") as whole:
            at = 0
            while at < len(whole):
                at += self.send(whole[at : at + MOST_SENT], flags)
                if end is not None and at < len(whole) and time.monotonic() > end:
                    raise TimeoutError("timed out")

    def sendmsg(self, buffers, *_arguments):
        return self.send(b"".join(buffers))

    def sendto(self, data, *_arguments):
        return self.send(data)

    def shutdown(self, how):
        fd = self._number()
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "the socket is not connected")
        if how != _socket.SHUT_RD:
            _ask(SHUTDOWN, fd)


_peers = {}
"""Descriptor -> address that it is connected to: a socket that takes a descriptor over knows it by that."""


def _received(fd, size, timeout, late):
    if not size:
        return b""
    if _State.received >= COLLECTED_BYTES and gc.isenabled():
        _State.received = 0
        gc.collect()
    try:
        data = os.pread(fd, min(size, MOST_RECEIVED), _place(timeout))
    except OSError as error:
        raise _in_words(fd, error, timeout, late) from None
    _State.received += len(data)
    return data


def _sent(fd, data, timeout, late):
    if not data:
        return 0
    try:
        return os.pwrite(fd, data, _place(timeout))
    except OSError as error:
        raise _in_words(fd, error, timeout, late) from None


def _in_words(fd, error, timeout, late):
    """What went wrong, in the host's words."""
    if error.errno == errno.EAGAIN:
        return TimeoutError(late) if timeout else BlockingIOError(errno.EAGAIN, "nothing can be done now")
    if error.errno in (errno.EBADF, errno.ENOTCAPABLE):
        return PermissionError(errno.EACCES, NO_NETWORK)
    try:
        _ask(STATUS, fd, _TIME.pack(0))
    except OSError as told:
        if told.errno != errno.EINPROGRESS:
            return told
    return error


def _host_and_port(address):
    if not isinstance(address, tuple) or len(address) < 2:
        raise TypeError("an address is a tuple of a host and a port")
    host, port = address[:2]
    if isinstance(host, (bytes, bytearray)):
        host = host.decode()
    if not isinstance(host, str) or not isinstance(port, int):
        raise TypeError("a host is a str, and a port an int")
    if not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535.")
    return host, port


_SERVICES = {
    "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "http": 80, "pop3": 110, "imap2": 143, "imap": 143,
    "https": 443, "smtps": 465, "submission": 587, "ldap": 389, "ldaps": 636, "imaps": 993, "pop3s": 995,
    "mysql": 3306, "postgresql": 5432, "redis": 6379,
}  # fmt: skip


def _getservbyname(name, protocol="tcp"):
    if name not in _SERVICES:
        raise OSError("service/proto not found")
    return _SERVICES[name]


def _getservbyport(port, protocol="tcp"):
    for name, number in _SERVICES.items():
        if number == port:
            return name
    raise OSError("port/proto not found")


def _port_of(port):
    if port is None:
        return 0
    if isinstance(port, (bytes, bytearray)):
        port = port.decode()
    if isinstance(port, str):
        if port.isdigit():
            return int(port)
        if port in _SERVICES:
            return _SERVICES[port]
        raise _socket.gaierror(_socket.EAI_SERVICE, "Servname not supported for ai_socktype")
    return int(port)


def _is_numeric(host):
    for family in (_socket.AF_INET, _socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            _socket.inet_pton(family, host.partition("%")[0])
            return family
    return None


def _getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    """No name is looked up here: its address is the name, which the host checks and looks up when it connects."""
    if isinstance(host, (bytes, bytearray)):
        host = host.decode()
    number = _port_of(port)
    host = host or ("0.0.0.0" if flags & _socket.AI_PASSIVE else "localhost")
    found = _is_numeric(host) or _socket.AF_INET
    if flags & _socket.AI_NUMERICHOST and _is_numeric(host) is None:
        raise _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
    if family not in (0, found):
        raise _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
    if type not in (0, _socket.SOCK_STREAM):
        raise _socket.gaierror(_socket.EAI_SOCKTYPE, "there are only stream sockets in the sandbox")
    place = (host, number, 0, 0) if found == _socket.AF_INET6 else (host, number)
    return [(found, int(_socket.SOCK_STREAM), _socket.IPPROTO_TCP, "", place)]


def _gethostbyname(host):
    if host in ("", "0.0.0.0"):
        return "0.0.0.0"
    if _is_numeric(host) == _socket.AF_INET:
        return host
    raise _socket.gaierror(_socket.EAI_FAIL, "names are looked up by the host: connect to the name itself")


def _gethostbyname_ex(host):
    return host, [], [_gethostbyname(host)]


def _gethostbyaddr(address):
    raise _socket.herror(1, "Unknown host")


def _getnameinfo(address, flags):
    return str(address[0]), str(address[1])


def _unsupported(name):
    def refuse(*_arguments, **_keywords):
        raise OSError(errno.ENOTSUP, f"socket.{name} is not there in the sandbox")

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


_PROTOCOLS = {"ip": 0, "icmp": 1, "tcp": 6, "udp": 17}


def _getprotobyname(name):
    if name not in _PROTOCOLS:
        raise OSError("protocol not found")
    return _PROTOCOLS[name]


_FLAGS = getattr(_socket, "SOCK_NONBLOCK", 0) | getattr(_socket, "SOCK_CLOEXEC", 0)


def _install_socket():
    options = {
        "SO_BROADCAST": 6, "SO_ERROR": 4, "SO_KEEPALIVE": 9, "SO_LINGER": 13, "SO_RCVBUF": 8, "SO_RCVTIMEO": 66,
        "SO_REUSEADDR": 2, "SO_SNDBUF": 7, "SO_SNDTIMEO": 67, "SO_TYPE": 3,
    }  # fmt: skip
    for name, value in options.items():
        if not hasattr(_socket, name):
            setattr(_socket, name, value)
    _socket.socket = _socket.SocketType = Socket
    _socket.getaddrinfo, _socket.gethostbyname = _getaddrinfo, _gethostbyname
    _socket.gethostbyname_ex, _socket.gethostbyaddr = _gethostbyname_ex, _gethostbyaddr
    _socket.getnameinfo, _socket.getprotobyname = _getnameinfo, _getprotobyname
    _socket.getservbyname, _socket.getservbyport = _getservbyname, _getservbyport
    _socket.gethostname = lambda: "sandbox"
    for name in ("if_nameindex", "if_nametoindex", "if_indextoname", "sethostname"):
        if not hasattr(_socket, name):
            setattr(_socket, name, _unsupported(name))
    _socket.setdefaulttimeout, _socket.getdefaulttimeout = _set_default_timeout, lambda: _State.timeout
    importlib.reload(importlib.import_module("socket"))  # its class is made of ours


def _set_default_timeout(timeout):
    if timeout is not None and timeout < 0:
        raise ValueError("Timeout value out of range")
    _State.timeout = None if timeout is None else float(timeout)


# --- _ssl -----------------------------------------------------------------------------------------------


class SSLError(OSError):
    """An error of TLS."""

    __module__ = "ssl"
    library = reason = None

    def __str__(self):
        return str(self.args[1] if len(self.args) > 1 else "".join(map(str, self.args[:1])))


def _kind(name, *bases, **fields):
    return type(name, bases, {"__module__": "ssl", **fields})


_KINDS = {
    "SSLZeroReturnError": _kind("SSLZeroReturnError", SSLError),
    "SSLWantReadError": _kind("SSLWantReadError", SSLError),
    "SSLWantWriteError": _kind("SSLWantWriteError", SSLError),
    "SSLSyscallError": _kind("SSLSyscallError", SSLError),
    "SSLEOFError": _kind("SSLEOFError", SSLError),
    "SSLCertVerificationError": _kind(
        "SSLCertVerificationError", SSLError, ValueError, verify_code=1, verify_message=""
    ),
}


def _ssl_error(name, message):
    error = _KINDS.get(name, SSLError)(1, message)
    error.library, error.reason = "SSL", message
    if name == "SSLCertVerificationError":
        error.reason, error.verify_message = "CERTIFICATE_VERIFY_FAILED", message.partition(": ")[2]
    return error


def _want_read():
    return _KINDS["SSLWantReadError"](2, "The operation did not complete (read)")


class MemoryBIO:
    """Buffer of bytes."""

    def __init__(self):
        self._data, self._has_end = bytearray(), False

    pending = property(lambda self: len(self._data))
    eof = property(lambda self: self._has_end and not self._data)

    def read(self, size=-1):
        size = len(self._data) if size < 0 else size
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    def write(self, data):
        if self._has_end:
            raise SSLError("cannot write() after write_eof()")
        self._data += data
        return len(data)

    def write_eof(self):
        self._has_end = True


class _Connection:
    """What is asked of a TLS connection."""

    info = session = owner = None
    session_reused = False
    server_side = False

    def getpeercert(self, binary_form=False):
        if self.info is None:
            raise ValueError("handshake not done yet")
        if binary_form:
            return bytes.fromhex(self.info["certificate"])
        peer = dict(self.info["peer"] or {})
        for field in ("subject", "issuer"):
            if field in peer:
                peer[field] = tuple(tuple(map(tuple, part)) for part in peer[field])
        if "subjectAltName" in peer:
            peer["subjectAltName"] = tuple(map(tuple, peer["subjectAltName"]))
        return peer

    def cipher(self):
        return tuple(self.info["cipher"]) if self.info else None

    def version(self):
        return self.info["version"] if self.info else None

    def selected_alpn_protocol(self):
        return self.info["alpn"] if self.info else None

    def shared_ciphers(self):
        return None

    def compression(self):
        return None

    def pending(self):
        return 0

    def get_channel_binding(self, cb_type="tls-unique"):
        return None

    def verify_client_post_handshake(self):
        raise NotImplementedError("certificates of clients are not there in the sandbox")


def _wanted(context, name, mark=""):
    return json.dumps({"name": name, "alpn": context._alpn, "in_band": mark}).encode()


class _SSLSocket(_Connection):
    """TLS over a socket."""

    def __init__(self, context, sock, name):
        self.context, self.server_hostname, self._owner = context, name, sock

    def do_handshake(self):
        if self.info is not None:
            return
        owner = self._owner
        _ask(START_TLS, owner._number(), _wanted(self.context, self.server_hostname))
        try:
            self.info = owner._wait_connected(owner.gettimeout())
        except TimeoutError:
            raise TimeoutError("_ssl.c: The handshake operation timed out") from None

    def read(self, size=1024, buffer=None):
        timeout = self._owner.gettimeout()
        try:
            data = _received(self._owner._number(), size, timeout, "The read operation timed out")
        except BlockingIOError:
            raise _want_read() from None
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def write(self, data):
        with memoryview(data) as view, view.cast("B") as whole:
            part = bytes(whole[:MOST_SENT])
        try:
            return _sent(self._owner._number(), part, self._owner.gettimeout(), "The write operation timed out")
        except BlockingIOError:
            raise _KINDS["SSLWantWriteError"](3, "The operation did not complete (write)") from None

    def shutdown(self):
        return self._owner


class _SSLObject(_Connection):
    """TLS over two buffers, through which plain text goes: a mark tells the socket at their end to begin TLS."""

    def __init__(self, context, incoming, outgoing, name):
        self.context, self._incoming, self._outgoing, self.server_hostname = context, incoming, outgoing, name
        self._has_asked = False

    def do_handshake(self):
        if self.info is not None:
            return
        if not self._has_asked:
            wanted = _wanted(self.context, self.server_hostname, _MARK.decode())
            self._outgoing.write(_MARK + _NUMBER.pack(len(wanted)) + wanted)
            self._has_asked = True
        data, start = self._incoming._data, len(_MARK) + _NUMBER.size
        size = _NUMBER.unpack_from(data, len(_MARK))[0] if len(data) >= start else 0
        if not size or len(data) < start + size:
            if self._incoming._has_end:
                raise _KINDS["SSLEOFError"](8, "EOF occurred in violation of protocol")
            raise _want_read()
        answer = json.loads(bytes(data[start : start + size]))
        del data[: start + size]
        if "error" in answer:
            if answer["error"].startswith("SSL"):
                raise _ssl_error(answer["error"], answer["message"])
            raise ConnectionResetError(errno.ECONNRESET, answer["message"])
        self.info = answer["info"]

    def read(self, size=1024, buffer=None):
        data = self._incoming.read(size)
        if not data and size:
            if self._incoming._has_end:
                raise _KINDS["SSLZeroReturnError"](6, "TLS/SSL connection has been closed (EOF)")
            raise _want_read()
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def write(self, data):
        return self._outgoing.write(bytes(data))

    def shutdown(self):
        return None


class _SSLContext:
    """Settings of TLS: they are kept, and the host has its own."""

    def __new__(cls, protocol):
        self = object.__new__(cls)
        is_client = protocol == _CONSTANTS["PROTOCOL_TLS_CLIENT"]
        self._protocol, self._alpn = protocol, []
        self._options, self._flags = _CONSTANTS["OP_ALL"], _CONSTANTS["VERIFY_X509_TRUSTED_FIRST"]
        self._verify_mode = _CONSTANTS["CERT_REQUIRED" if is_client else "CERT_NONE"]
        self.check_hostname = is_client
        self.minimum_version, self.maximum_version = (
            _CONSTANTS["PROTO_MINIMUM_SUPPORTED"],
            _CONSTANTS["PROTO_MAXIMUM_SUPPORTED"],
        )
        self.post_handshake_auth, self.keylog_filename, self.sni_callback, self._callback = False, None, None, None
        self.num_tickets, self.security_level, self._host_flags = 2, 2, 0
        return self

    protocol = property(lambda self: self._protocol)
    _msg_callback = property(lambda self: self._callback, lambda self, value: setattr(self, "_callback", value))
    options = property(lambda self: self._options, lambda self, value: setattr(self, "_options", int(value)))
    verify_flags = property(lambda self: self._flags, lambda self, value: setattr(self, "_flags", int(value)))

    @property
    def verify_mode(self):
        return self._verify_mode

    @verify_mode.setter
    def verify_mode(self, value):
        if value == _CONSTANTS["CERT_NONE"] and self.check_hostname:
            raise ValueError("Cannot set verify_mode to CERT_NONE when check_hostname is enabled.")
        self._verify_mode = int(value)

    def _set_alpn_protocols(self, data):
        self._alpn = []
        while data:
            self._alpn.append(bytes(data[1 : 1 + data[0]]).decode("ascii"))
            data = data[1 + data[0] :]

    def set_ciphers(self, ciphers):
        """Do nothing: the host chooses."""

    def get_ciphers(self):
        return []

    def load_verify_locations(self, cafile=None, capath=None, cadata=None):
        """Do nothing: the host knows whom to trust (Network.ca_file)."""

    def load_cert_chain(self, *_arguments, **_keywords):
        raise OSError(errno.ENOTSUP, "certificates of clients are not there in the sandbox")

    def set_default_verify_paths(self):
        """Do nothing, as `load_verify_locations`."""

    def set_ecdh_curve(self, name):
        """Do nothing, as `set_ciphers`."""

    def cert_store_stats(self):
        return {"x509": 1, "crl": 0, "x509_ca": 1}

    def get_ca_certs(self, binary_form=False):
        return []

    def session_stats(self):
        return {}

    def _wrap_socket(self, sock, server_side, server_hostname=None, *, owner=None, session=None):
        if server_side:
            raise OSError(errno.ENOTSUP, "there are no servers in the sandbox")
        return _SSLSocket(self, sock, server_hostname)

    def _wrap_bio(self, incoming, outgoing, server_side, server_hostname=None, *, owner=None, session=None):
        if server_side:
            raise OSError(errno.ENOTSUP, "there are no servers in the sandbox")
        return _SSLObject(self, incoming, outgoing, server_hostname)


_CONSTANTS = {
    "SSL_ERROR_ZERO_RETURN": 6, "SSL_ERROR_WANT_READ": 2, "SSL_ERROR_WANT_WRITE": 3, "SSL_ERROR_WANT_X509_LOOKUP": 4,
    "SSL_ERROR_SYSCALL": 5, "SSL_ERROR_SSL": 1, "SSL_ERROR_WANT_CONNECT": 7, "SSL_ERROR_EOF": 8,
    "SSL_ERROR_INVALID_ERROR_CODE": 10, "CERT_NONE": 0, "CERT_OPTIONAL": 1, "CERT_REQUIRED": 2, "VERIFY_DEFAULT": 0,
    "VERIFY_CRL_CHECK_LEAF": 4, "VERIFY_CRL_CHECK_CHAIN": 12, "VERIFY_X509_STRICT": 32,
    "VERIFY_ALLOW_PROXY_CERTS": 64, "VERIFY_X509_TRUSTED_FIRST": 32768, "VERIFY_X509_PARTIAL_CHAIN": 524288,
    "ALERT_DESCRIPTION_CLOSE_NOTIFY": 0, "ALERT_DESCRIPTION_UNEXPECTED_MESSAGE": 10,
    "ALERT_DESCRIPTION_BAD_RECORD_MAC": 20, "ALERT_DESCRIPTION_RECORD_OVERFLOW": 22,
    "ALERT_DESCRIPTION_DECOMPRESSION_FAILURE": 30, "ALERT_DESCRIPTION_HANDSHAKE_FAILURE": 40,
    "ALERT_DESCRIPTION_BAD_CERTIFICATE": 42, "ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE": 43,
    "ALERT_DESCRIPTION_CERTIFICATE_REVOKED": 44, "ALERT_DESCRIPTION_CERTIFICATE_EXPIRED": 45,
    "ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN": 46, "ALERT_DESCRIPTION_ILLEGAL_PARAMETER": 47,
    "ALERT_DESCRIPTION_UNKNOWN_CA": 48, "ALERT_DESCRIPTION_ACCESS_DENIED": 49, "ALERT_DESCRIPTION_DECODE_ERROR": 50,
    "ALERT_DESCRIPTION_DECRYPT_ERROR": 51, "ALERT_DESCRIPTION_PROTOCOL_VERSION": 70,
    "ALERT_DESCRIPTION_INSUFFICIENT_SECURITY": 71, "ALERT_DESCRIPTION_INTERNAL_ERROR": 80,
    "ALERT_DESCRIPTION_USER_CANCELLED": 90, "ALERT_DESCRIPTION_NO_RENEGOTIATION": 100,
    "ALERT_DESCRIPTION_UNSUPPORTED_EXTENSION": 110, "ALERT_DESCRIPTION_CERTIFICATE_UNOBTAINABLE": 111,
    "ALERT_DESCRIPTION_UNRECOGNIZED_NAME": 112, "ALERT_DESCRIPTION_BAD_CERTIFICATE_STATUS_RESPONSE": 113,
    "ALERT_DESCRIPTION_BAD_CERTIFICATE_HASH_VALUE": 114, "ALERT_DESCRIPTION_UNKNOWN_PSK_IDENTITY": 115,
    "PROTOCOL_SSLv23": 2, "PROTOCOL_TLS": 2, "PROTOCOL_TLS_CLIENT": 16, "PROTOCOL_TLS_SERVER": 17,
    "PROTOCOL_TLSv1": 3, "PROTOCOL_TLSv1_1": 4, "PROTOCOL_TLSv1_2": 5, "OP_ALL": 2147483728, "OP_NO_SSLv2": 0,
    "OP_NO_SSLv3": 33554432, "OP_NO_TLSv1": 67108864, "OP_NO_TLSv1_1": 268435456, "OP_NO_TLSv1_2": 134217728,
    "OP_NO_TLSv1_3": 536870912, "OP_CIPHER_SERVER_PREFERENCE": 4194304, "OP_SINGLE_DH_USE": 0, "OP_NO_TICKET": 16384,
    "OP_SINGLE_ECDH_USE": 0, "OP_NO_COMPRESSION": 131072, "OP_ENABLE_MIDDLEBOX_COMPAT": 1048576,
    "OP_NO_RENEGOTIATION": 1073741824, "OP_IGNORE_UNEXPECTED_EOF": 128, "HOSTFLAG_ALWAYS_CHECK_SUBJECT": 1,
    "HOSTFLAG_NEVER_CHECK_SUBJECT": 32, "HOSTFLAG_NO_WILDCARDS": 2, "HOSTFLAG_NO_PARTIAL_WILDCARDS": 4,
    "HOSTFLAG_MULTI_LABEL_WILDCARDS": 8, "HOSTFLAG_SINGLE_LABEL_SUBDOMAINS": 16, "ENCODING_PEM": 1, "ENCODING_DER": 2,
    "PROTO_MINIMUM_SUPPORTED": -2, "PROTO_MAXIMUM_SUPPORTED": -1, "PROTO_SSLv3": 768, "PROTO_TLSv1": 769,
    "PROTO_TLSv1_1": 770, "PROTO_TLSv1_2": 771, "PROTO_TLSv1_3": 772, "HAS_SNI": True, "HAS_ECDH": True,
    "HAS_ALPN": True, "HAS_SSLv2": False, "HAS_SSLv3": False, "HAS_TLSv1": True, "HAS_TLSv1_1": True,
    "HAS_TLSv1_2": True, "HAS_TLSv1_3": True, "OPENSSL_VERSION_NUMBER": 805306672, "HAS_TLS_UNIQUE": False,
    "HAS_NPN": False,
}  # fmt: skip

_PURPOSES = {
    "1.3.6.1.5.5.7.3.1": (129, "serverAuth", "TLS Web Server Authentication", "1.3.6.1.5.5.7.3.1"),
    "1.3.6.1.5.5.7.3.2": (130, "clientAuth", "TLS Web Client Authentication", "1.3.6.1.5.5.7.3.2"),
}


def _txt2obj(txt, name=False):
    for purpose in _PURPOSES.values():
        if txt in purpose:
            return purpose
    raise ValueError(f"unknown object '{txt[:100]}'")


def _nid2obj(nid):
    for purpose in _PURPOSES.values():
        if nid == purpose[0]:
            return purpose
    raise ValueError(f"unknown NID {nid}")


def _install_ssl():
    module = types.ModuleType("_ssl")
    module.__dict__.update(_CONSTANTS, **_KINDS, SSLError=SSLError, MemoryBIO=MemoryBIO, _SSLContext=_SSLContext)
    module.__dict__.update(
        OPENSSL_VERSION="TLS of the host", OPENSSL_VERSION_INFO=(3, 0, 0, 0, 0), _OPENSSL_API_VERSION=(3, 0, 0, 0, 0),
        _DEFAULT_CIPHERS="DEFAULT", HAS_PHA=False, HAS_PSK=False, HAS_PSK_TLS13=False,
        SSLSession=type("SSLSession", (), {"__module__": "_ssl"}), SSLSocket=_SSLSocket, _SSLSocket=_SSLSocket,
        RAND_status=lambda: True, RAND_add=lambda *_: None, RAND_bytes=os.urandom, txt2obj=_txt2obj, nid2obj=_nid2obj,
        get_default_verify_paths=lambda: ("SSL_CERT_FILE", "/etc/ssl/cert.pem", "SSL_CERT_DIR", "/etc/ssl/certs"),
    )  # fmt: skip
    sys.modules["_ssl"] = module


# --- asyncio --------------------------------------------------------------------------------------------


class Selector(selectors._BaseSelectorImpl):
    """Selector of connections: one request waits for them, for answers of host functions, and for a time."""

    def select(self, timeout=None, is_beside_calls=False, until_idle=False):
        if not self._fd_to_key:
            if timeout is None:
                raise RuntimeError("deadlock: every task waits, no timer is set, and nothing else can wake them")
            if timeout > 0:
                time.sleep(timeout)
            return []
        entries = b"".join([_ENTRY.pack(fd, key.events) for fd, key in self._fd_to_key.items()])
        wait = -1 if timeout is None else max(0, int(timeout * 1e6 + 0.999))
        head = _POLL.pack(is_beside_calls, UNTIL_IDLE if until_idle else wait)
        try:
            found = _ask(POLL, 0, head + entries)
        except PermissionError:  # no socket without a network; a file, perhaps
            found = entries
        return [(self._fd_to_key[fd], events) for fd, events in _ENTRY.iter_unpack(found) if fd in self._fd_to_key]


class _Loop(asyncio.selector_events.BaseSelectorEventLoop):
    """Event loop of a guest: timers, tasks and connections; no signals, and no threads that could wake it."""

    def __init__(self, selector=None):
        super().__init__(selector or Selector())

    def _make_self_pipe(self):
        """Do nothing: there is no thread to wake it."""

    _close_self_pipe = _write_to_self = _make_self_pipe

    async def getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0):
        return sys.modules["socket"].getaddrinfo(host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr, flags=0):
        return _getnameinfo(sockaddr, flags)

    def _sock_connect_cb(self, fut, sock, address):
        if fut.done():
            return
        try:
            sock._wait_connected(0.0)
        except BlockingIOError:
            pass
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            fut.set_exception(error)
        else:
            fut.set_result(None)


def _install_loop():
    import asyncio.base_events
    import asyncio.selector_events
    import asyncio.sslproto
    import ssl

    import _sandbox_loop

    asyncio.base_events.ssl = asyncio.selector_events.ssl = ssl
    importlib.reload(asyncio.sslproto)
    _Loop.__name__ = _Loop.__qualname__ = "SandboxEventLoop"
    _sandbox_loop.SandboxEventLoop = _Loop
    _sandbox_loop.SandboxEventLoopPolicy._loop_factory = _Loop
    asyncio.DefaultEventLoopPolicy._loop_factory = _Loop  # of a policy that is set later, or made by the library
    asyncio.EventLoop = asyncio.SelectorEventLoop = _Loop
    _sandbox_live.wait_with(Selector)


# --- Secrets --------------------------------------------------------------------------------------------


class _Secrets(collections.abc.Mapping):
    """Secrets of the run by their names: placeholders, for which the host puts the values into requests."""

    def __getitem__(self, name):
        value = os.environ.get(name, "")
        if not value.startswith(_PLACEHOLDER):
            raise KeyError(name)
        return value

    def __iter__(self):
        return (name for name, value in os.environ.items() if value.startswith(_PLACEHOLDER))

    def __len__(self):
        return sum(1 for _ in self)

    def __repr__(self):
        return f"secrets({', '.join(self)})"


_PLACEHOLDER = "secret-"


def install():
    """Put the bottom in, before the snapshot; what common clients import is imported then, too."""
    sys.modules["_sandbox_net"] = sys.modules[__name__]
    builtins.secrets = _Secrets()
    _install_ssl()
    _install_socket()
    importlib.import_module("ssl")
    _install_loop()
    for name in ("http.client", "netrc", "urllib.request"):
        importlib.import_module(name)
