"""The connection to a PostgreSQL server: its address, transactions, and what its refusals mean in a sentence."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fewlabel.search.cases import NoIndex
from fewlabel.types import FewlabelError

CONNECT_S = 10
_LOCAL = ("localhost", "127.0.0.1", "::1")
_NO_TABLE, _NO_SCHEMA = "42P01", "3F000"


@dataclass(frozen=True)
class Address:
    """postgresql://user:password@host:port/database?schema=name&sslmode=verify-full, with a socket's folder as host.

    shown: without the password. schema: where the tables of this index lie. sslmode: disable, require or verify-full;
    by default disable on this machine and verify-full for others.
    """

    shown: str
    user: str
    password: str | None
    host: str
    port: int
    database: str
    schema: str
    sslmode: str

    @staticmethod
    def parse(url: str) -> Address:
        """Raises FewlabelError for an address that cannot be read."""
        try:
            parts = urlsplit(url)
            options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            host = options.get("host") or parts.hostname or "localhost"
            user = unquote(parts.username or os.environ.get("PGUSER") or "postgres")
            password = unquote(parts.password) if parts.password else os.environ.get("PGPASSWORD")
            port = parts.port or 5432
        except ValueError as error:
            raise FewlabelError(
                f"The index's address cannot be read ({error}): give postgresql://user@host:port/database."
            ) from None
        hidden = url.replace(f":{parts.password}@", "@", 1) if parts.password else url
        usual = "disable" if host.startswith("/") or host in _LOCAL else "verify-full"
        mode = options.get("sslmode", usual)
        if mode not in ("disable", "require", "verify-full"):
            raise FewlabelError(f"sslmode is {mode!r} in {hidden}: use disable, require or verify-full.")
        database = unquote(parts.path.strip("/")) or user
        return Address(hidden, user, password, host, port, database, options.get("schema", "fewlabel"), mode)


class Server:
    """One connection; transactions of several threads go one after the other."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._one_at_a_time = Lock()
        self._connection = _connected(address)

    def run(self, sql: str, **values: Any) -> list[list[Any]]:
        """The rows of one statement, values in place of :name. Within a transaction of `writing` or `reading`."""
        return self._connection.run(sql, **values) or []

    @property
    def count(self) -> int:
        """How many rows the last statement wrote."""
        return int(self._connection.row_count)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All of it or nothing. Raises FewlabelError for what the server refuses."""
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything as of one moment; the server refuses whatever would write. Raises FewlabelError as `writing`."""
        with self._transaction("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        from pg8000.exceptions import Error

        with self._one_at_a_time:
            try:
                self._connection.run(begin)
                yield
                self._connection.run("COMMIT")
            except BaseException as error:
                self._rolled_back()
                if isinstance(error, Error | OSError):
                    raise _refusal(self.address, error) from None
                raise

    def _rolled_back(self) -> None:
        from pg8000.exceptions import Error

        with suppress(Error, OSError):  # where the connection is gone, so is the transaction
            self._connection.run("ROLLBACK")


def _connected(address: Address) -> Any:
    try:
        from pg8000.exceptions import Error
        from pg8000.native import Connection
    except ImportError as error:
        raise FewlabelError('PostgreSQL needs pg8000: run pip install "fewlabel[postgres]".') from error
    try:
        return Connection(
            address.user,
            password=address.password,
            database=address.database,
            sock=_socket(address),
            host=address.host,
            ssl_context=_ssl_context(address.sslmode),
            application_name="fewlabel",
        )
    except (Error, OSError) as error:
        raise FewlabelError(
            f"The server of {address.shown} cannot be reached ({_said(error)}): check the address, the password "
            "(PGPASSWORD) and that the server is running."
        ) from None


def _socket(address: Address) -> socket.socket:
    if address.host.startswith("/"):
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(CONNECT_S)
        found.connect(f"{address.host}/.s.PGSQL.{address.port}")
    else:
        found = socket.create_connection((address.host, address.port), CONNECT_S)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found.settimeout(None)
    return found


def _ssl_context(mode: str) -> ssl.SSLContext | bool:
    if mode == "disable":
        return False
    context = ssl.create_default_context()
    if mode == "require":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def code_of(error: BaseException) -> str:
    """The server's code of an error, five characters; "" where it has none."""
    said = error.args[0] if error.args else None
    return str(said.get("C", "")) if isinstance(said, dict) else ""


def _said(error: BaseException) -> str:
    said = error.args[0] if error.args else None
    return str(said.get("M")) if isinstance(said, dict) else str(error)


def _refusal(address: Address, error: BaseException) -> FewlabelError:
    if code_of(error) in (_NO_TABLE, _NO_SCHEMA):
        return NoIndex(
            f"There is no index at {address.shown}: make one with `fewlabel index COLLECTION --model RUN --to "
            f"{address.shown}`."
        )
    return FewlabelError(f"The server of {address.shown} refused: {_said(error)}.")
