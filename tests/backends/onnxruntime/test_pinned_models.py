"""Candidates and their fingerprints stay what they were: studies of earlier versions go on."""

from __future__ import annotations

import hashlib
from typing import Any

from exact_models import MODELS
from exact_models import candidates
import pytest


def digest(model: Any) -> str:
    """A hash of a candidate's bytes, followed by its fingerprint."""
    content = model.proto.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()[:16] + " " + model.fingerprint


PINNED: dict[str, dict[str, str]] = {
    "linear": {
        "fp32": "ac686b4e28264320 873e9ee6cd3748add1ffad8bace5edfa",
        "default": "73bb9ef002973872 4531c55fe58f627e3a85616a59fd3ed7",
        "first in fallback": "1363643790171ebb 8cbd91d1877965d0ea2fedece1d44d4c",
        "every second in fallback": "4273f1af512921e6 478196a0d90ec129243c0f914a508a9c",
        "dynamic": "4792a5004539ed7f 245efcf43269f21d7a4406e283bfb6fc",
        "mixed": "1ed0a62a997289eb c1415a901ae5c0fdaf956ec57d53bb47",
        "per tensor": "f2df8c66991bb1ef 7a265a3a4210227f7e691d30f68edf21",
    },
    "conv": {
        "fp32": "7edfe183b57216b8 948d093bbe00688494a495cdca0122c9",
        "default": "e64afe9bcb74fb4f 9de8be738e6e1d3ed423b476b6a9de03",
        "first in fallback": "b7e4a5eea03939ec c27541d2432ef6efe9252f774fa3ae80",
        "every second in fallback": "12d49b8c31bd3e09 b82fa54df2e30af185638d5219f9ba5f",
        "dynamic": "7edfe183b57216b8 948d093bbe00688494a495cdca0122c9",
        "mixed": "e64afe9bcb74fb4f 9de8be738e6e1d3ed423b476b6a9de03",
        "per tensor": "9c229f3620bdf12a 947e5d4a2518895f2274db2dee70484c",
    },
    "table": {
        "fp32": "e0bf9333aca271f9 8e1f871077d503ba6a9812292cb38747",
        "default": "399327cd6744498a 518b2d6170d58b74bf0294acc2392e1a",
        "first in fallback": "efcb6f9839c81725 3544f41b315c317ccd26609cec562c9f",
        "every second in fallback": "18b639d4241b7708 19b00c42638082ffd6dd3d9cba7d2087",
        "dynamic": "399327cd6744498a 518b2d6170d58b74bf0294acc2392e1a",
        "mixed": "399327cd6744498a 518b2d6170d58b74bf0294acc2392e1a",
        "per tensor": "b6f9891bbaa54ac0 aaa577c2d06ee5a780229cd6d960e7e7",
    },
    "recurrent": {
        "fp32": "4d40a2ee8c28fc70 60c997c8d4c41165a4b286a77cc6e8dd",
        "default": "a595451489bf4ba5 fcf73978dd1aa82f0d8ee06cac1e1f9b",
        "first in fallback": "3bde422870feffe3 ca3e59f14c1c955687f7182b40515314",
        "every second in fallback": "7b215d1c1cc4d74e 0485407d71fea92466dd0c50091d4c3b",
        "dynamic": "a595451489bf4ba5 fcf73978dd1aa82f0d8ee06cac1e1f9b",
        "mixed": "a595451489bf4ba5 fcf73978dd1aa82f0d8ee06cac1e1f9b",
        "per tensor": "3967e082f3bc98bf e4dd056f700a000de36db6537fe7a91d",
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_models_and_fingerprints_are_what_they_were(name: str) -> None:
    found = {what: digest(model) for what, model in candidates(name).items()}
    assert found == PINNED[name]
