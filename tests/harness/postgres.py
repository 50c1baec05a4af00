"""A PostgreSQL server of the tests' own, in a temporary directory, on a Unix socket and on the loopback."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from silo_node.data import postgres as reading

PASSWORD = "correct horse'battery"  # noqa: S105  of a server that lives as long as the tests
USER = "silo"


def binaries() -> Path | None:
    """Return the newest directory of a server's programs; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parent.parent.name))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def missing() -> str:
    """Return why no server can be started; nothing if one can."""
    if binaries() is None:
        return "no PostgreSQL server is installed"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return ""


@dataclass
class Server:
    """A running server with one superuser and the silo's own user, which may only read what it is granted."""

    directory: Path
    port: int

    @classmethod
    def start(cls, directory: Path) -> "Server":
        server = cls(directory, _free_port())
        directory.chmod(0o755)
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        server.run("initdb", "-D", directory / "data", "-U", "owner", "--auth=trust", "-E", "UTF8", "--locale=C")
        server.resume()
        server.execute(
            f"CREATE USER {USER} PASSWORD {{}}; CREATE SCHEMA clinical; CREATE SCHEMA consent;"
            f" GRANT USAGE ON SCHEMA clinical, consent TO {USER};"
            f" ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {USER}",
            PASSWORD,
        )
        rules = "local all owner trust\nhost all owner 127.0.0.1/32 trust\nhost all silo 127.0.0.1/32 scram-sha-256\n"
        (directory / "data" / "pg_hba.conf").write_text(rules)
        server.execute("SELECT pg_reload_conf()")
        return server

    @property
    def dsn(self) -> str:
        """The connection string of the silo."""
        password = PASSWORD.replace("'", "\\'")
        return f"host=127.0.0.1 port={self.port} dbname=postgres user={USER} password='{password}'"

    def execute(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run statements as the database's owner, committed at once."""
        query = sql.SQL(text).format(*map(sql.Literal, values)) if values else sql.SQL(text)
        with self.owner() as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def fill(self, table: str, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Make a table anew; `columns` are its names and types."""
        self.execute(f"DROP TABLE IF EXISTS {table} CASCADE; CREATE TABLE {table} ({columns})")
        with self.owner() as connection, connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def owner(self) -> "psycopg.Connection":
        """Connect as the database's owner."""
        return psycopg.connect(
            host=str(self.directory), port=self.port, user="owner", dbname="postgres", autocommit=True
        )

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.directory / "data", "-m", "immediate", "-w", "stop")

    def resume(self) -> None:
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off -c log_statement=all"
        log = self.directory / "data" / "server.log"
        self.run("pg_ctl", "-D", self.directory / "data", "-l", log, "-o", options, "-w", "start")

    def freeze(self) -> None:
        """Let the server accept connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        head = int((self.directory / "data" / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{head}/task/{head}/children").read_text().split()
        for process in (head, *map(int, children)):
            os.kill(process, number)

    @staticmethod
    def meanwhile(
        monkeypatch: pytest.MonkeyPatch,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        """Let something happen while a silo reads: when it is connected, before or after each of its tables."""
        whole = reading._rows

        def rows(*arguments: Any) -> Any:
            before()
            found = whole(*arguments)
            after()
            return found

        monkeypatch.setattr(reading, "_rows", rows)

    def log(self) -> str:
        return (self.directory / "data" / "server.log").read_text()

    def run(self, program: str, *arguments: object) -> None:
        folder = binaries()
        assert folder is not None
        prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        subprocess.run(
            [*prefix, str(folder / program), *map(str, arguments)],
            check=True,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
