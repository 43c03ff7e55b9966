from __future__ import annotations

from optuna_quant._common.notebook_table import notebook_table


def test_a_row_for_each_value() -> None:
    html = notebook_table("Found", [("loss", "0.1%"), ("ops", "7")])
    assert html.count("<tr>") == 2
    assert html.index("Found") < html.index("loss") < html.index("0.1%") < html.index("ops")


def test_names_are_no_code() -> None:
    html = notebook_table("<b>", [("<script>", "a & b\x1b[31m")])
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html
    assert "\x1b" not in html


def test_no_head_is_no_empty_line() -> None:
    assert "<p>" not in notebook_table("", [("a", "b")])
