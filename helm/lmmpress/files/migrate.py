"""Brings MLflow's database to the schema of this image's version, before the server starts.

Runs in the image of MLflow. One pod does it while the others wait: the lock belongs to the connection, so a pod that
dies lets go of it. An error that may pass, as while the database starts, is waited for; any other ends the pod at once,
with the value of the chart that mends it on the last line, which Kubernetes shows as the reason.
"""

import os
import re
import subprocess
import sys
import time

import sqlalchemy

LOCK = 7_114_663  # any number that nothing else locks in this database
PASSWORD = "set the user's password in {login}, or name another user in postgresql.username"
LASTING = {
    r"password authentication failed|no password supplied": PASSWORD,
    r"role \".*\" does not exist": "make the user, or name another in postgresql.username",
    r"role \".*\" is not permitted to log in": "ALTER ROLE ... LOGIN, or name another user in postgresql.username",
    r"database \".*\" does not exist": "make the database, or name another in postgresql.database",
    r"permission denied for database": "GRANT CONNECT ON DATABASE to the user of postgresql.username",
    r"no pg_hba.conf entry": "admit this user, database and network in the server's pg_hba.conf; where it asks for "
    "encryption, postgresql.external.sslMode=require",
    r"root certificate file \".*\" does not exist": "name the ConfigMap with the server's authority in "
    "ca.existingConfigMap, or postgresql.external.sslMode=require, which checks no certificate",
    r"certificate verify failed": "the server's authority has to be in the ConfigMap of ca.existingConfigMap",
    r"server certificate for .* does not match host name": "write postgresql.external.host as in the server's "
    "certificate, or postgresql.external.sslMode=verify-ca",
    r"server does not support SSL": "turn TLS on in the server, or postgresql.external.sslMode=disable",
    r"invalid sslmode value|invalid port number|invalid connection option": "postgresql.external",
    r"Can't locate revision": "the database is of a newer MLflow than this image: set mlflow.image to that one, or "
    "restore the database of before the upgrade",
    r"permission denied for schema|no schema has been selected": "GRANT CREATE, USAGE ON SCHEMA public to the user of "
    "postgresql.username, or make it the owner of the database",
    r"must be owner of": "make the user of postgresql.username the owner of MLflow's tables",
}
"""What PostgreSQL, its client and MLflow say where no waiting helps, and what mends it."""


def fault(told: str) -> str | None:
    """The line that says an error which stays, with what mends it; None if the error may pass."""
    for line in told.splitlines():
        for words, mend in LASTING.items():
            if re.search(words, line):
                login = os.environ.get("MIGRATE_LOGIN", "the Secret of postgresql.existingSecret")
                return f"{line.strip()}; {mend.format(login=login)}"
    return None


def connected(engine: sqlalchemy.Engine, until: float) -> sqlalchemy.Connection:
    """A connection, asked for until it is too late: the database may just start."""
    while True:
        try:
            return engine.connect()
        except sqlalchemy.exc.OperationalError as error:
            told = str(error.orig).strip()
            if stays := fault(told):
                sys.exit(stays)
            told = told.splitlines()[0]
            if time.monotonic() > until:
                sys.exit(f"{told}; check postgresql.external.host and .port, and networkPolicy.postgresql")
            print(f"{told}; trying again", flush=True)
            time.sleep(2)


def upgrade(address: str) -> int:
    """Run MLflow's own upgrade, and repeat the line at the end that says why it failed."""
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
    told = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            told.append(line)
    if running.returncode and (stays := fault("".join(told))):
        print(stays, flush=True)
    return running.returncode


def main() -> int:
    address = os.environ["MLFLOW_BACKEND_STORE_URI"]
    engine = sqlalchemy.create_engine(address)
    until = time.monotonic() + float(os.environ.get("MIGRATE_TIMEOUT", "300"))
    with connected(engine, until) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sqlalchemy.text(f"select pg_advisory_lock({LOCK})"))
        return upgrade(address)


sys.exit(main())
