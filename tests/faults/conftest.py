"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

from faults.zygote import Zygote
from faults.zygote import zygote as zygotes
import pytest


@pytest.fixture(scope="package")
def zygote() -> Iterator[Zygote]:
    with zygotes() as found:
        yield found
