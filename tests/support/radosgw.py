"""A real, independent S3 server for the opt-in test target `make test-radosgw`: Ceph RGW as Debian packages it, over
one monitor and one in-memory OSD on loopback, in a temporary folder."""

import http.client
import shutil
import socket
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PATIENCE = 120.0  # seconds

# The gateway insists on an encrypted connection to the monitor unless told otherwise, and without cephx there is none.
# Admin sockets are off because their paths may not exceed 107 bytes, and tests' folders are deep. The gateway's cache
# is off because its writes would wait for the answer of a killed gateway's watch, which the OSD keeps for 30 seconds.
CONFIG = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = {folder}/keyring
ms mon client mode = crc
run dir = {folder}
crash dir = {folder}/crash
admin socket =
log to file = false
log to stderr = true
err to stderr = true
mon cluster log to file = false
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0

[mon]
mon data = {folder}/mon
paxos propose interval = 0.05

[osd]
osd data = {folder}/osd
osd objectstore = memstore
osd crush initial weight = 1
osd fast shutdown = false
memstore device bytes = 4294967296

[client]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 32
rgw cache enabled = false
"""


class RadosGateway:
    """Neither root nor the `ceph` user is needed: each daemon runs as the user who runs the tests."""

    def __init__(self, folder: Path, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.access_key = "radosgw-tests"
        self.secret_key = "secret-of-radosgw-tests"
        self.folder = folder.resolve()
        self.port = port
        self.config = self.folder / "ceph.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        # A daemon gets SIGKILL when the thread that started it ends, so all are started by one that ends with the
        # tests' process, however that ends; a test may call start() from a shorter thread.
        self.starter = ThreadPoolExecutor(max_workers=1)

    def start(self) -> None:
        deadline = time.monotonic() + PATIENCE
        if not self.config.exists():
            self._make_cluster(deadline)
        else:
            self._start_daemon("ceph-mon", "-i", "a")
            self._start_daemon("ceph-osd", "-i", "0")
        if not self._runs("radosgw") and self._answers():
            raise RuntimeError(f"something else answers at {self.endpoint}")
        self._start_daemon("radosgw", "-n", "client.radosgw")
        while not self._answers():
            if not self._runs("radosgw") or time.monotonic() > deadline:
                raise RuntimeError(f"radosgw does not answer: {self._last_logged('radosgw')}")
            time.sleep(0.1)

    def make_user(self, name: str) -> tuple[str, str]:
        """The access key and secret key of another user, who owns no bucket and may create none."""
        keys = (f"key-of-{name}", f"secret-of-{name}")
        user = ["--uid", name, "--display-name", name, "--access-key", keys[0], "--secret-key", keys[1]]
        self._run(time.monotonic() + PATIENCE, "radosgw-admin", "user", "create", *user, "--max-buckets", "-1")
        return keys

    def kill(self) -> None:
        """Send SIGKILL to the gateway only: the cluster keeps the written data."""
        self.daemons["radosgw"].kill()
        self.daemons["radosgw"].wait()

    def stop(self) -> None:
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()

    def _make_cluster(self, deadline: float) -> None:
        for name in ("mon", "osd", "rgw", "crash"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        mon_port = free_port()
        config = CONFIG.format(folder=self.folder, fsid=fsid, port=self.port, mon_port=mon_port)
        self.config.write_text(config, encoding="utf-8")
        monmap = str(self.folder / "monmap")
        self._run(
            deadline, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", monmap
        )
        self._run(deadline, "ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._start_daemon("ceph-mon", "-i", "a")
        self._run(deadline, "ceph", "osd", "new", osd)
        self._run(deadline, "ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
        self._start_daemon("ceph-osd", "-i", "0")
        user = ["--uid", "tests", "--display-name", "tests", "--access-key", self.access_key]
        self._run(deadline, "radosgw-admin", "user", "create", *user, "--secret-key", self.secret_key)

    def _run(self, deadline: float, name: str, *arguments: str) -> None:
        command = [program(name), "-c", str(self.config), *arguments]
        seconds = max(deadline - time.monotonic(), 0)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, encoding="utf-8", stdin=subprocess.DEVNULL, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{name} does not end: {'; '.join(map(self._last_logged, self.daemons))}") from error
        if done.returncode:
            raise RuntimeError(f"{name} failed: {last_line(done.stderr)}")

    def _start_daemon(self, name: str, *arguments: str) -> None:
        if self._runs(name):
            return
        command = [program("setpriv"), "--pdeathsig", "KILL", program(name), "-f", "-c", str(self.config), *arguments]
        with self._log(name).open("ab") as log:
            started = self.starter.submit(
                subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            self.daemons[name] = started.result()

    def _runs(self, name: str) -> bool:
        return name in self.daemons and self.daemons[name].poll() is None

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _last_logged(self, name: str) -> str:
        log = self._log(name)
        return f"{log} ends with {last_line(log.read_text(encoding='utf-8', errors='replace'))!r}"

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        else:
            return True
        finally:
            connection.close()


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is missing: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd")
    return found


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "(nothing logged)"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
