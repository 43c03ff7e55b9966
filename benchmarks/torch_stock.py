"""torchao's own way from a module to a quantized program: export, prepare, calibrate, convert."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from optuna_quant.backends.torch.converted.torchao_passes import quiet_torchao
from optuna_quant.backends.torch_program.quiet import without_idle_output


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usual_config() -> Any:
    """What X86InductorQuantizer does by default: ranges from histograms."""
    with quiet_torchao(), without_idle_output():
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    return x86.get_default_x86_inductor_quantization_config()


def minmax_config() -> Any:
    """The ranges that this package's ``minmax`` has: integers of weights from -127 to 127."""
    usual_config()
    from torchao.quantization.pt2e import MinMaxObserver
    from torchao.quantization.pt2e import PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec
    from torchao.quantization.pt2e.quantizer.utils import QuantizationConfig

    activation = QuantizationSpec(
        dtype=torch.uint8,
        observer_or_fake_quant_ctr=MinMaxObserver,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    return QuantizationConfig(activation, activation, weight, None)


def quantized(
    module: nn.Module,
    batches: Iterable[torch.Tensor],
    config: Any,
    *,
    layers_alone: bool = False,
) -> Callable[..., torch.Tensor]:
    """The program in reference form, for batches of any size.

    Args:
        module:
            The module, in evaluation mode.
        batches:
            The calibration data.
        config:
            How X86InductorQuantizer quantizes each op.
        layers_alone:
            Whether to quantize what goes into convolutions and Linear layers, and nothing else:
            not what is added to their outputs, nor what goes through other ops.
    """
    batches = list(batches)
    with quiet_torchao(), without_idle_output(), torch.no_grad():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        shapes = ({0: torch.export.Dim.AUTO},)
        graph: Any = torch.export.export(module, (batches[0],), dynamic_shapes=shapes).module()
        kind = _layers_alone(x86.X86InductorQuantizer) if layers_alone else None
        quantizer = (kind or x86.X86InductorQuantizer)().set_global(config)
        prepared = prepare_pt2e(graph, quantizer)
        for batch in batches:
            prepared(batch)
        found: Callable[..., torch.Tensor] = convert_pt2e(prepared)
    return found


def _layers_alone(kind: Any) -> Any:
    def nothing(*_: object) -> None:
        """Annotates nothing."""

    patterns = (
        "_annotate_conv2d_binary_unary",
        "_annotate_conv2d_binary",
        "_annotate_linear_binary_unary",
        "_annotate_mul_tensor",
        "_annotate_propagation_quantizable_pattern_entry",
    )
    assert all(callable(getattr(kind, name)) for name in patterns)
    return type("LayersAlone", (kind,), dict.fromkeys(patterns, nothing))
