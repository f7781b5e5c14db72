"""A real PostgreSQL with pgvector for tests: a cluster of its own in a temporary folder, reached by a socket in it."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


def folders():
    """Where PostgreSQL's programs may lie: $VBPR_POSTGRES, Debian's places, the PATH, the package pgserver."""
    named = [os.environ.get("VBPR_POSTGRES", "")]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    found = shutil.which("pg_config")
    package = importlib.util.find_spec("pgserver")
    wheel = [Path(package.origin).parent / "pginstall" / "bin"] if package and package.origin else []
    return [Path(path) for path in [*named, *debian, *([Path(found).parent] if found else []), *wheel] if str(path)]


def with_pgvector():
    """The first of these folders whose server has pgvector; None where none has."""
    for folder in folders():
        if (folder / "initdb").is_file() and (folder / "pg_config").is_file():
            told = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)
            if (Path(told.stdout.strip() or "/nowhere") / "extension" / "vector.control").is_file():
                return folder
    return None


POSTGRES = with_pgvector()


class Postgres:
    """One server; `with Postgres() as server: server.run("-c", "SELECT 1")`."""

    def __enter__(self):
        self.home = Path(tempfile.mkdtemp(prefix="vbpr-pg-", dir="/tmp"))  # the name of a socket must be short
        self.user = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            known = {entry.pw_name: entry for entry in pwd.getpwall()}
            entry = known.get("postgres") or known["nobody"]
            self.user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self.home, entry.pw_uid, entry.pw_gid)
        try:
            self.call("initdb", "-D", self.data, "-U", "vbpr", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
            options = f"-k {self.home} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB -c max_connections=5"
            self.call("pg_ctl", "-D", self.data, "-w", "-l", self.home / "log", "-o", options, "start")
        except BaseException:
            shutil.rmtree(self.home, ignore_errors=True)
            raise
        return self

    def __exit__(self, *fault):
        self.call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def data(self):
        return self.home / "data"

    def call(self, program, *words):
        """Run one of the server's programs as the server's user."""
        done = subprocess.run(
            [POSTGRES / program, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", **self.user
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")

    def run(self, *words, cwd="/"):
        """What psql prints: a line a row, columns with tabs between."""
        command = [
            POSTGRES / "psql",
            "-X",
            "-q",
            "-h",
            self.home,
            "-U",
            "vbpr",
            "-d",
            "postgres",
            "-A",
            "-t",
            "-F",
            "\t",
        ]
        done = subprocess.run([*command, *words], capture_output=True, text=True, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]


__all__ = ["POSTGRES", "Postgres"]
