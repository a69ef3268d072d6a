"""PostgreSQL for the tests: the real server, from Debian's packages, in a new folder, on loopback."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trustme import LeafCert

from support.s3 import free_port


def programs() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    named = shutil.which("initdb")
    return found[-1] if found else Path(named).resolve().parent if named else None


@contextmanager
def postgresql(
    bin: Path, user: str, password: str, database: str, certificate: LeafCert | None = None
) -> Iterator[int]:
    """Start a server as its image does, with one user with a password and one database, and return its port. With a
    certificate it takes TLS connections too."""
    # it refuses to be root
    user_of, group_of = ("nobody", "nogroup") if os.geteuid() == 0 else (None, None)
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder, port = Path(name), free_port()
        (folder / "password").write_text(password, "utf-8")
        if user_of:
            for path in (folder, folder / "password"):
                shutil.chown(path, user_of, group_of)
        make = [str(bin / "initdb"), "-D", str(folder / "data"), "-A", "scram-sha-256", "-U", user]
        make += ["--locale=C", "--encoding=UTF8"]  # whatever this machine's locale is
        make.append(f"--pwfile={folder}/password")
        subprocess.run(make, check=True, capture_output=True, cwd=folder, user=user_of, group=group_of)
        serve = [str(bin / "postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
        if certificate:
            certificate.private_key_pem.write_to_path(folder / "tls.key")
            certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
            (folder / "tls.key").chmod(0o600)
            if user_of:
                shutil.chown(folder / "tls.key", user_of, group_of)
            serve += ["-c", "ssl=on", "-c", f"ssl_cert_file={folder}/tls.crt", "-c", f"ssl_key_file={folder}/tls.key"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log, cwd=folder, user=user_of, group=group_of)
        try:
            there = ["-h", "127.0.0.1", "-p", str(port), "-U", user]
            until = time.monotonic() + 60
            while subprocess.run([bin / "pg_isready", *there], capture_output=True, check=False).returncode:
                assert server.poll() is None, (folder / "log").read_text("utf-8")
                assert time.monotonic() < until, "PostgreSQL does not start"
                time.sleep(0.1)
            known = os.environ | {"PGPASSWORD": password}
            subprocess.run([bin / "createdb", *there, database], check=True, capture_output=True, env=known)
            yield port
        finally:
            server.send_signal(signal.SIGINT)  # without waiting for clients to leave
            server.wait(timeout=60)
