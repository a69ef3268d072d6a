"""`helm test`: does MLflow take a run with a metric and an artifact, and give both back?

Runs in the image of lmmpress, with the environment of the pipeline's pods. Leaves nothing but a deleted run.
"""

import os
import sys
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException


def check(name: str) -> str | None:
    """What is wrong with it, if anything."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return f"there is no experiment {name}"
    run = client.create_run(experiment.experiment_id, tags={"lmmpress.kind": "check"}, run_name="helm test").info.run_id
    try:
        client.log_metric(run, "check", 0.5)
        if client.get_run(run).data.metrics != {"check": 0.5}:
            return "a metric does not come back"
        # through the server, into the bucket of artifacts
        client.log_text(run, "check", "check.txt")
        with tempfile.TemporaryDirectory() as folder:
            if Path(client.download_artifacts(run, "check.txt", folder)).read_text("utf-8") != "check":
                return "an artifact does not come back"
        client.set_terminated(run)
    finally:
        client.delete_run(run)
    return None


try:
    wrong = check(os.environ["EXPERIMENT"])
except (MlflowException, OSError) as error:
    wrong = str(error).splitlines()[0]
if wrong:
    sys.exit(f"MLflow at {os.environ['MLFLOW_TRACKING_URI']}: {wrong}")
print("MLflow: takes runs, metrics and artifacts, and gives them back")
