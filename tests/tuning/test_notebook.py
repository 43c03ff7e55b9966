"""Results show themselves: as their summary in Python, as a small table in a notebook."""

from __future__ import annotations

from fake_backend import FakeBackend
from fake_backend import FakeModel

import optuna_quant
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.space.config import QuantConfig
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.result import TuningResult


EVIL = "</td><script>alert(1)</script>"


def search(**damage: float) -> TuningResult:
    return tune(
        backend=FakeBackend({"a": 0.3, EVIL: 0.05, **damage}),
        evaluate=_accuracy,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.1),
    )


def _accuracy(model: FakeModel) -> float:
    return model.accuracy


def test_results_show_their_summary() -> None:
    result = search()
    assert repr(result) == str(result) == result.summary()


def test_a_search_is_a_small_table() -> None:
    result = search()
    html = result._repr_html_()
    assert html.startswith("<div><p><b>A quantized model meets the criterion.</b></p><table>")
    for name, value in {
        "metric": "0.85",
        "metric of FP32": "0.9",
        "loss": "0.05",
        "criterion": "at most 0.1 absolute loss, higher is better",
        "size": "3.9 kB (FP32: 4 kB)",
        "ops": "1 of 2 ops quantized",
    }.items():
        assert f'>{name}</th><td style="text-align: left">{value}</td>' in html


def test_what_is_shown_is_escaped() -> None:
    backend = FakeBackend({"a": 0.3, EVIL: 0.05})
    built = optuna_quant.quantize(backend=backend)
    config = QuantConfig(dict(built.config.with_fallback(EVIL).ops))
    again = optuna_quant.quantize(backend=backend, config=config)
    html = again._repr_html_()
    assert f"in fallback: {EVIL}" in repr(again)
    assert "<script>" not in html and "&lt;script&gt;alert(1)" in html


def test_built_models_have_what_results_have() -> None:
    result = search()
    built = optuna_quant.quantize(backend=result.backend, config=result.config)
    assert built.model().fingerprint == result.model().fingerprint
    assert (built.nbytes, built.fp32_bytes) == (result.nbytes, result.fp32_bytes)
    assert repr(built) == str(built) == built.summary()
    compared = built.compare()
    assert repr(compared) == str(compared) == compared.summary()
    assert "<th" in compared._repr_html_() and ">size</th>" in compared._repr_html_()
