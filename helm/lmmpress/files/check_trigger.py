"""`helm test`: is the trigger ready, and can it do its work? It has to resolve names, reach the store, MLflow and what
runs pipelines through the network policies, and its settings, plans and profiles have to fit the registered models.

Runs in the image of the trigger, with its account, its settings and its secrets.
"""

import os
import subprocess
import sys
import urllib.error
import urllib.request

READY = f"{os.environ['ADDRESS']}/readyz"

try:
    with urllib.request.urlopen(READY, timeout=20) as answer:
        print(f"{READY}: {answer.read().decode('utf-8', 'replace')}", flush=True)
except urllib.error.HTTPError as error:
    sys.exit(f"{READY}: {error.read().decode('utf-8', 'replace')}")
except OSError as error:
    sys.exit(f"{READY}: {error}; `kubectl describe deployment` and `kubectl logs` of the trigger say why")
sys.exit(subprocess.run(["lmmpress", "trigger", "check"], check=False).returncode)
