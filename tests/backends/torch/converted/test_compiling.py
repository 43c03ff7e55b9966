"""A compiled program takes what the exported one does, and checks each shape once."""

from __future__ import annotations

import pytest


torch = pytest.importorskip("torch")

from converted_modules import ready  # noqa: E402

from optuna_quant.backends.torch.converted.compiling import has_compiler  # noqa: E402


pytestmark = [
    pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler"),
    pytest.mark.slow,  # The compiler takes seconds.
]


def test_any_batch_gives_what_the_program_gives() -> None:
    from torch._inductor import config

    it = ready("chain", "static")
    model = it.backend.quantize(it.config("static"))
    plain, compiled = model.native(), model.compiled().native()
    for samples in (16, 3, 16, 1, 5, 3):
        x = it.samples[:samples]
        torch.testing.assert_close(compiled(x), plain(x))
        assert not config.freezing  # A setting of the whole process.


def test_a_shape_that_it_does_not_take_is_refused_at_any_time() -> None:
    it = ready("chain", "static")
    compiled = it.backend.quantize(it.config("static")).compiled()
    wrong = it.samples[:, :-1]
    for _ in range(2):
        with pytest.raises(Exception, match="to be equal to"):
            compiled.run({"x": wrong.numpy()})
        with pytest.raises(ValueError, match="'x' must be float32 of shape"):
            compiled.native()(wrong)
        compiled.native()(it.samples)
