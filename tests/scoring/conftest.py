"""One folder per family for all tests of the scorer."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from tests.tiny_models import FAMILIES, save_tiny_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Family -> folder of a tiny model; read only."""
    root = tmp_path_factory.mktemp("tiny")
    return {family: save_tiny_model(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Layers of 32 units gain nothing from threads, which on a busy machine wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
