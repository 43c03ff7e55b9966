"""A torch module as a function of chosen parameters.

Torch is an extra: this module imports it, so import this module where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import torch
from torch.nn.attention import SDPBackend
from torch.nn.attention import sdpa_kernel


class ModuleFunction:
    """Calls a module, in evaluation mode, with leaf tensors in place of some of its parameters.

    Args:
        module:
            The module. It is left as it was, its mode and its gradients included.
        parameters:
            For each op, the name of its weight among ``module.named_parameters()``.
        inputs:
            The names of what the module takes, in the order of its arguments.
        outputs:
            The names of what it gives, in order.

    Attributes:
        leaves:
            A leaf tensor for each op; the same one for ops that share a parameter.

    Raises:
        ValueError:
            If the module has no such parameter.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        parameters: Mapping[str, str],
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        known = dict(module.named_parameters(remove_duplicate=False))
        for op, name in parameters.items():
            if name not in known:
                raise ValueError(f"parameters: the module has no parameter {name!r} (op {op!r}).")
        self._module = module
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._device = next(iter(known.values())).device if known else torch.device("cpu")
        # A tied parameter has several names; one of them stands for all.
        first = {id(known[name]): name for name in reversed([*parameters.values()])}
        self._replaced = {
            name: known[name].detach().clone().requires_grad_() for name in first.values()
        }
        self.leaves = {op: self._replaced[first[id(known[n])]] for op, n in parameters.items()}

    def __call__(self, feed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the module.

        Args:
            feed:
                A tensor for each input; others are ignored.

        Returns:
            The outputs by name.

        Raises:
            TypeError:
                If the module gives no tensor, nor a mapping or sequence of tensors.
        """
        arguments = tuple(feed[name].to(self._device) for name in self._inputs)
        modes = {part: part.training for part in self._module.modules()}
        self._module.eval()
        try:
            # The fused kernels of attention cannot be differentiated twice.
            with sdpa_kernel(SDPBackend.MATH):
                result = torch.func.functional_call(self._module, self._replaced, arguments)
        finally:
            for part, mode in modes.items():
                part.training = mode
        if isinstance(result, torch.Tensor):
            result = (result,)
        if isinstance(result, Mapping):
            return {str(name): value for name, value in result.items()}
        if isinstance(result, Sequence):
            return dict(zip(self._outputs, result, strict=False))
        raise TypeError(
            f"The module gave a value of type {type(result).__name__}; expected a tensor, or a "
            "sequence or mapping of tensors."
        )
