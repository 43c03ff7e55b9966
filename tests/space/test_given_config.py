"""What is no configuration is refused by backends, with the way to get one."""

from __future__ import annotations

import optuna
import pytest
from spaces import make_space

from optuna_quant.space.given_config import check_is_config


def test_a_configuration_is_taken() -> None:
    check_is_config(make_space(1).default())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (optuna.create_study().ask(), r"not the trial: space\.suggest\(trial\) .*Got a Trial"),
        ({"quant.op:a": "fp32"}, r"space\.config_from_params\(params\) .*Got a dict"),
        ("fp32", r"such as space\.default\(\).*Got a str"),
    ],
)
def test_what_is_none_is_told_how_to_make_one(given: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        check_is_config(given)
