"""A cluster that answers, as the room reads it."""

import pytest
from support.kubernetes_api import Kubernetes

from lmmpress.pods.cluster_reader import Cluster, connect


@pytest.fixture
def cluster(kubernetes: Kubernetes) -> Cluster:
    return connect()
