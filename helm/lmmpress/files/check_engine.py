"""`helm test`: can a pod of a pipeline report to Argo? It has to resolve names, reach the API of Kubernetes through the
network policies, and be allowed to write results.

Runs in the image of lmmpress, with the account and the labels of a pipeline's pod.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

from lmmpress.doctor.names import check_names

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
ADDRESS = f"https://{f'[{HOST}]' if ':' in HOST else HOST}:{PORT}"
REVIEWS = f"{ADDRESS}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def may(verb: str, resource: str) -> bool:
    """Whether this pod's account may do something with a resource of Argo's in its namespace."""
    attributes = {"namespace": os.environ["NAMESPACE"], "verb": verb, "group": "argoproj.io", "resource": resource}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    asked = urllib.request.Request(
        REVIEWS,
        json.dumps(review | {"spec": {"resourceAttributes": attributes}}).encode(),
        {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text('utf-8')}", "Content-Type": "application/json"},
    )
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(asked, timeout=20, context=trusted) as answer:
        return json.load(answer)["status"]["allowed"] is True


found = check_names()
if found.status != "ok":
    sys.exit(f"{found.said}; {found.mend}")
print(found.said)
try:
    lacking = [verb for verb in ("create", "patch") if not may(verb, "workflowtaskresults")]
except OSError as error:
    sys.exit(f"{REVIEWS}: {error}; networkPolicy.kubernetesApi and .kubernetesApiPorts have to allow this address")
if lacking:
    sys.exit(f"its account may not {', '.join(lacking)} workflowtaskresults.argoproj.io; pipeline.rbac.create=true")
print("may report results to Argo")
