"""A cluster that grows: a request for a node that is not there yet waits, and asks for as many workers as may come."""

import pytest

from nas_core.base.errors import ClusterError
from nas_core.study.config import ClusterConfig
from tasks.ray_pool import Cluster, Request

GPU_NODE = Request(num_cpus=1, num_gpus=1)


def test_a_cluster_that_stays_as_it_is_refuses_at_once(cluster):
    with pytest.raises(ClusterError, match="max_workers"):
        Cluster(ClusterConfig()).check(GPU_NODE)


def test_a_cluster_that_grows_is_asked(cluster):
    growing = Cluster(ClusterConfig(max_workers=50))
    growing.check(GPU_NODE)
    assert growing.num_workers(GPU_NODE) == 50
