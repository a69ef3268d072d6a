"""Whom a lease names in a cluster."""

import pytest
from support.store_worker import opened

from lmmpress.errors import UserError
from lmmpress.store.run_state import hold

POD = "lmm-x7k2p-retry-system-container-impl-1209986570"


def test_a_lease_names_the_pod_whole_although_host_names_are_cut_short(
    bucket_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMMPRESS_POD", POD)
    monkeypatch.setattr("socket.gethostname", lambda: POD[:-10])
    store = opened(bucket_address)
    with (
        store.run_state("a" * 64),
        pytest.raises(UserError, match=rf"another process works on this run \({POD}, process \d+\)"),
        hold(store.objects, f"runs/{'a' * 64}.json", holder="another"),
    ):
        pass
