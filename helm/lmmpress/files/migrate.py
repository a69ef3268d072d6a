"""Brings MLflow's database to the schema of this image's version, before the server starts.

Runs in the image of MLflow. One pod does it while the others wait: the lock belongs to the connection, so a pod that
dies lets go of it.
"""

import os
import subprocess
import sys
import time

import sqlalchemy

LOCK = 7_114_663  # any number that nothing else locks in this database


def connected(engine: sqlalchemy.Engine, until: float) -> sqlalchemy.Connection:
    """A connection, asked for until it is too late: the database may just start."""
    while True:
        try:
            return engine.connect()
        except sqlalchemy.exc.OperationalError as error:
            told = str(error.orig).splitlines()[0]
            if time.monotonic() > until:
                sys.exit(told)
            print(f"{told}; trying again", flush=True)
            time.sleep(2)


def main() -> int:
    address = os.environ["MLFLOW_BACKEND_STORE_URI"]
    engine = sqlalchemy.create_engine(address)
    until = time.monotonic() + float(os.environ.get("MIGRATE_TIMEOUT", "300"))
    with connected(engine, until) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sqlalchemy.text(f"select pg_advisory_lock({LOCK})"))
        return subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", address], check=False).returncode


sys.exit(main())
