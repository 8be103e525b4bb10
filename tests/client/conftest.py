from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcremote.client.client import Client
from hpcremote.client.view import DirectView
from tests.client.support import Cluster, FakeLink, cluster


@pytest.fixture
def four() -> Iterator[Cluster]:
    made = cluster(4)
    yield made
    made.client.close()


@pytest.fixture
def rc(four: Cluster) -> Client:
    return four.client


@pytest.fixture
def link(four: Cluster) -> FakeLink:
    return four.link


@pytest.fixture
def view(rc: Client) -> DirectView:
    return rc[:]
