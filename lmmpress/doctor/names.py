"""Checks in a pod that names can be resolved at all: with policies that deny DNS every other check would only hang."""

import re
import socket
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from lmmpress.doctor.finding import Finding, failed, ok

NAME = "names"
RESOLV = Path("/etc/resolv.conf")
_SECONDS = 25.0
"""More than two tries of five seconds at each of two resolvers."""


def check_names(resolv: Path = RESOLV) -> Finding:
    """Resolve the name of Kubernetes' own Service; that there is no such name is an answer too."""
    told = resolv.read_text("utf-8", "replace") if resolv.exists() else ""
    resolvers = re.findall(r"^\s*nameserver\s+(\S+)", told, re.MULTILINE)
    domain = next(iter(re.findall(r"\bsvc\.(\S+)", told)), "cluster.local").rstrip(".")
    name = f"kubernetes.default.svc.{domain}."  # the dot at the end: no other name is tried
    shown = " and ".join(resolvers) or "no resolver in /etc/resolv.conf"
    if why := _why_not(name):
        mend = "networkPolicy.dns in the chart's values has to name it, as a peer of a NetworkPolicy"
        return failed(NAME, f"pods of pipelines get no answer from {shown}: {why}", mend)
    return ok(NAME, f"{shown} answers pods of pipelines")


def resolvers_of(finding: Finding) -> list[str]:
    """The addresses that a failed finding of this check names."""
    said = re.search(r"no answer from (.+?): ", finding.said)
    return said[1].split(" and ") if said and "/etc" not in said[1] else []


def _why_not(name: str) -> str | None:
    """Why a name gets no answer; None if there is one, be it that there is no such name."""
    pool = ThreadPoolExecutor(1)
    asked: Future[object] = pool.submit(socket.getaddrinfo, name, 443)
    try:
        if not wait([asked], _SECONDS).done:
            return f"none within {_SECONDS:.0f} s"
        asked.result()
    except socket.gaierror as error:
        no_answer = (socket.EAI_AGAIN, socket.EAI_FAIL)
        return str(error.strerror) if error.errno in no_answer else None
    except OSError as error:
        return str(error.strerror or error)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return None
