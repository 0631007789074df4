"""Docstrings of installed packages: licences are checked, the standard library stays out."""

import pytest

from rankmill.errors import InputError
from rankmill.training.docstrings import harvest, licence


@pytest.mark.slow
def test_documented_public_functions_are_found() -> None:
    found = {item.name: item for item in harvest(["fsspec"])}
    item = found["fsspec.spec.AbstractFileSystem.open"]
    assert item.text.startswith("Return a file-like object")
    assert "block_size" in item.parameters
    assert not any(part.startswith("_") for name in found for part in name.split(".")[-1:])
    assert not any(".tests." in name for name in found)


def test_the_licence_is_read_from_the_metadata() -> None:
    assert "BSD" in licence("fsspec")


def test_packages_that_are_missing_or_not_permissive_are_named() -> None:
    with pytest.raises(InputError, match="'no-such-package' is not installed"):
        harvest(["no-such-package"])
    with pytest.raises(InputError, match=r"permissively licensed packages only(.|\n)*hypothesis: MPL-2\.0"):
        harvest(["fsspec", "hypothesis"])
