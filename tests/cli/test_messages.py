"""What the command says in its own terms."""

from __future__ import annotations

import pytest

from optuna_quant.cli.messages import with_flags


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "For the smallest model (up to 3% smaller) use objective='size' (--objective size); "
            "for another device give what ops cost there: costs= (--costs).",
            "For the smallest model (up to 3% smaller) use --objective size; for another device "
            "give what ops cost there: --costs.",
        ),
        ('use op_types="all" or --op-types all', "use --op-types all"),
        (
            "give it once: inputs={'scale': ...} (--input scale=VALUE).",
            "give it once: --input scale=VALUE.",
        ),
        (
            "use Criterion(kind='absolute', tolerable_loss=0.01) (--criterion absolute)",
            "use Criterion(kind='absolute', tolerable_loss=0.01) (--criterion absolute)",
        ),
        ("no flag: save(path, closest=True)", "no flag: save(path, closest=True)"),
    ],
)
def test_what_has_a_flag_is_advised_as_that(text: str, said: str) -> None:
    assert with_flags(text) == said
