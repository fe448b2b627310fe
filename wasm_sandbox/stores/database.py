"""SQLite file of the stores: private, versioned, shared by any number of processes.

Every operation opens the file anew, which takes less than a millisecond. So there is nothing to close, to share
between threads or to go wrong after a fork. The rollback journal is used and not the write-ahead log, because
it leaves one single file and works where the home directory is on a network.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from wasm_sandbox.directories import DATA_VARIABLE, store_path
from wasm_sandbox.errors import StoreError

BUSY_SECONDS = 30.0
"""Time that an operation waits for other processes before it fails."""

APPLICATION_ID = 0x5753_424F
"""SQLite's application id, which tells a store from any other database."""

_VERSION_1 = (
    """CREATE TABLE tools (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        organization_id TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        body TEXT NOT NULL,
        updated_at REAL NOT NULL,
        UNIQUE (organization_id, name),
        UNIQUE (organization_id, id)
    )""",
    """CREATE TABLE sandbox_configs (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        organization_id TEXT NOT NULL,
        id TEXT NOT NULL,
        type TEXT NOT NULL,
        config TEXT NOT NULL,
        updated_at REAL NOT NULL,
        UNIQUE (organization_id, type),
        UNIQUE (organization_id, id)
    )""",
    """CREATE TABLE sandbox_env_vars (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        organization_id TEXT NOT NULL,
        id TEXT NOT NULL,
        sandbox_config_id TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT,
        value_encrypted BLOB,
        updated_at REAL NOT NULL,
        UNIQUE (organization_id, sandbox_config_id, key),
        UNIQUE (organization_id, id),
        FOREIGN KEY (organization_id, sandbox_config_id)
            REFERENCES sandbox_configs (organization_id, id) ON DELETE CASCADE
    )""",
)

_MIGRATIONS = (_VERSION_1,)
"""Statements that lead from each version of the schema to the next. Append only: released ones never change."""

SCHEMA_VERSION = len(_MIGRATIONS)


# Guarantees:
# - any number of threads and processes may use the file: an operation has a connection of its own, closed at its end;
# - a reader sees one state of the data, a writer commits all of its block or nothing.
# Locks: none in the process. SQLite's own lock of the file is held by one writer at a time, from the begin of its
# block; another operation waits `BUSY_SECONDS` for it.
class Database:
    """SQLite file, created by the first write.

    Args:
        path: the file; by default ``store.sqlite3`` in the user's data directory, looked up at every operation.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = Path(path) if path is not None else None

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._path or store_path()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Connection that sees one state of the data; ``None`` if nothing has been stored yet.

        Raises:
            StoreError: if the file cannot be used.
        """
        path = self.path
        with _explained(path):
            if not path.exists():
                yield None
                return
            with closing(connect(path)) as connection:
                connection.execute("BEGIN")
                yield connection if _version(connection, path) else None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Connection in a write transaction, one at a time, committed if the block ends without an exception.

        Raises:
            StoreError: if the file cannot be used.
        """
        path = self.path
        with _explained(path):
            _make(path)
            with closing(connect(path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                _migrate(connection, path)
                yield connection
                connection.execute("COMMIT")

    def page(
        self, table: str, after: str | None = None, limit: int | None = None, **key: str
    ) -> list[sqlite3.Row] | None:
        """Rows of a table that match a key, in order of creation.

        Args:
            table: the table's name.
            after: the id of a row; only later rows are given.
            limit: maximum number of rows; ``None`` for all.
            key: column to value; a row matches if it has every value.

        Returns:
            The rows; ``None`` if the store exists and no matching row has the id ``after``.
        """
        where = _where(key)
        with self.reading() as connection:
            if connection is None:
                return []
            start = 0
            if after is not None:
                row = connection.execute(
                    f"SELECT sequence FROM {table} WHERE {where} AND id = ?", (*key.values(), after)
                ).fetchone()
                if row is None:
                    return None
                start = row["sequence"]
            return connection.execute(
                f"SELECT * FROM {table} WHERE {where} AND sequence > ? ORDER BY sequence LIMIT ?",
                (*key.values(), start, -1 if limit is None else limit),
            ).fetchall()

    def delete(self, table: str, **key: str) -> bool:
        """Remove the rows of a table that match a key, as in `page`; false if no row matches."""
        if not self.path.exists():
            return False
        with self.writing() as connection:
            deleted = connection.execute(f"DELETE FROM {table} WHERE {_where(key)}", tuple(key.values()))
            return deleted.rowcount > 0

    @contextmanager
    def decoding(self, what: str) -> Iterator[None]:
        """Translate the errors of making an object from a row.

        Raises:
            StoreError: if the row does not hold what was written; the message quotes nothing of it.
        """
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:
            raise damaged(self.path, what, error) from None


@contextmanager
def encoding(what: str) -> Iterator[None]:
    """Translate the errors of making JSON text from an object.

    Raises:
        ValueError: if the object holds a value that JSON cannot.
    """
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be stored: {error}") from None


def _where(key: Mapping[str, str]) -> str:
    """Condition that a row has every value of a key; the columns are this package's own, the values are bound."""
    return " AND ".join(f"{column} = ?" for column in key)


def connect(path: Path) -> sqlite3.Connection:
    """Connection to a store, made if need be, in a directory and a file that nobody else can read."""
    _check_directory(path.parent)
    _keep_private(path)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # a value that was removed is not left in the file
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Version of the schema; 0 for a file in which nothing has been stored."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application != APPLICATION_ID and (version or application or tables):
        raise StoreError(f"{path} is a database of another program; name another directory in {DATA_VARIABLE}")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the store {path} was written by a newer wasm-sandbox (its version is {version}, this one knows "
            f"{SCHEMA_VERSION}): upgrade wasm-sandbox, or name another directory in {DATA_VARIABLE}"
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection, path)
    if version == SCHEMA_VERSION:
        return
    for statements in _MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _make(path: Path) -> None:
    """Create the file with private permissions; SQLite would apply the umask."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_directory(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))


def _check_directory(directory: Path) -> None:
    """Refuse a directory in which others could replace the file. POSIX only: elsewhere profiles are private."""
    if os.name != "posix":
        return
    status = directory.stat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    if others_write or status.st_uid not in (os.geteuid(), 0):
        raise StoreError(
            f"others can write to the directory {directory} of the store: make it yours alone (chmod 700), "
            f"or name another one in {DATA_VARIABLE}"
        )


def _keep_private(path: Path) -> None:
    """Take away the rights that others have to the file."""
    if os.name != "posix":
        return
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise StoreError(f"the store {path} belongs to another user; name another directory in {DATA_VARIABLE}")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        path.chmod(0o600)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Translate errors of SQLite and the file system into `StoreError`, which says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # Python's own: a text is not UTF-8, and the message would quote it
            raise damaged(path, "a text in it", error) from None
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreError(
                f"the store {path} was in use by other processes for {BUSY_SECONDS:g} s; try again"
            ) from error
        raise StoreError(
            f"the store {path} cannot be used ({error}): check its directory and the space left there, "
            f"or name another one in {DATA_VARIABLE}"
        ) from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"the store {path} is damaged ({error}): put a copy of it back, or move it away to start anew"
        ) from error
    except OSError as error:
        raise StoreError(
            f"the store {path} cannot be used ({error.strerror or error}): name a directory that you can write "
            f"in {DATA_VARIABLE}"
        ) from error


def damaged(path: Path, what: str, error: Exception) -> StoreError:
    """Error for a row that does not hold what was written; it quotes nothing of the row."""
    return StoreError(f"the store {path} is damaged: {what} cannot be read ({type(error).__name__})")
