"""The chart on the cluster of KUBECONFIG."""

import json
import os
import subprocess
from typing import Any

import pytest
import yaml
from support.cluster.runs import LMMPRESS

pytestmark = pytest.mark.cluster


def test_helm_tests_pass(proof: Any) -> None:
    for release in proof.releases.values():
        release.test()


@pytest.mark.parametrize("inside", [[], ["--inside"]], ids=["outside", "inside"])
def test_doctor_finds_no_fault(proof: Any, inside: list[str]) -> None:
    for engine, release in proof.releases.items():
        file = proof.folder / f"cluster-{engine}.yaml"
        file.write_text(yaml.safe_dump(release.profile()), "utf-8")
        command = [str(LMMPRESS), "doctor", "--cluster", str(file), "--json", *inside]
        environment = os.environ | proof.run(f"{engine}-stage", engine, "stage").environment
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, env=environment)
        findings = json.loads(done.stdout)
        faults = [one for one in (findings["findings"] if isinstance(findings, dict) else findings)]
        assert not [one for one in faults if one["status"] == "failed"], engine
        assert done.returncode == 0
