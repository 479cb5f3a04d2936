"""A version that is not served is refused with those that are, and whose they are."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from indrnn.service.errors import UnknownModel
from indrnn.service.serving.models import Models, ServedModel


def test_a_refused_version_is_told_the_versions_and_the_model() -> None:
    manifests = [SimpleNamespace(name="action", version=version, sha256=version, state_size=1) for version in ("1", "2")]
    made: list[Any] = [SimpleNamespace(manifest=one) for one in manifests]
    models = Models(cast(list[ServedModel], made))
    assert models.choose("action", "1") is made[0]
    with pytest.raises(UnknownModel) as refused:
        models.choose("action", "9")
    assert refused.value.detail == "expected one of 1, 2, the versions of action that are served, got '9'"
    with pytest.raises(UnknownModel, match=r"^expected one of action, got 'x'$"):
        models.choose("x", "1")
