"""Tell someone who writes a backend of optional protocols of which it has some members only."""

from __future__ import annotations

import inspect

from optuna_quant._common.protocol_members import has_member
from optuna_quant._common.protocol_members import members_of
from optuna_quant._common.user_warnings import warn_user
from optuna_quant.backends import base
from optuna_quant.costs import CountsCosts
from optuna_quant.costs import HasCostConditions
from optuna_quant.costs import MeasuresCosts


OF_BACKENDS: tuple[type, ...] = (
    base.Calibrates,
    base.SharesCalibration,
    base.CalibratesForConfigs,
    base.TellsCalibrationBytes,
    base.PreviewsCalibration,
    base.ChoosesLatencyFeed,
    base.SharesParts,
    base.TrainsCandidates,
    base.SimulatesCandidates,
    base.OffersSensitivities,
    MeasuresCosts,
    CountsCosts,
    HasCostConditions,
    base.HasSignature,
    base.HasFileEndings,
    base.ReadsFiles,
    base.HasConstantInputs,
    base.TracesOutputs,
    base.HasBlocks,
    base.HasGraph,
    base.TellsLeftOut,
    base.TellsMissingRanges,
    base.TellsOtherRecipes,
    base.WeighsFloats,
    base.NamesOriginal,
    base.NamesSizes,
    base.SimulatesTarget,
)
"""What a backend may offer."""

OF_MODELS: tuple[type, ...] = (
    base.HasNative,
    base.MayDependOnBatch,
    base.RunsConcurrently,
    base.HasOptionalInputs,
    base.CompilesForUse,
    base.HasThreads,
    base.ShowsInputs,
)
"""What a model may offer."""

OF_SENSITIVITIES: tuple[type, ...] = (
    base.HasKey,
    base.ScoresTogether,
    base.ScoresWeightsApart,
    base.CountsPasses,
    base.TakesSamples,
    base.TakesBatches,
)
"""What a sensitivity may offer."""

NEEDS: dict[type, type] = {
    base.TellsCalibrationBytes: base.SharesCalibration,
    HasCostConditions: MeasuresCosts,
}
"""Protocols of which there is no use without another."""

WITHOUT: dict[type, str] = {
    base.SharesCalibration: "each worker calibrates for itself",
    base.TellsCalibrationBytes: "no calibration is handed on, whatever its size",
    base.TrainsCandidates: "no model is trained in its trial",
    base.ScoresWeightsApart: (
        "no explanation says whether an op's weights or its activations are the trouble"
    ),
    HasCostConditions: "nothing is measured under these conditions",
}
"""What the library does without a protocol that may be there in part."""


def together(protocol: type) -> tuple[str, ...]:
    """The members without one of which the library does not look at the others."""
    needed = members_of(NEEDS[protocol]) if protocol in NEEDS else ()
    return tuple(dict.fromkeys((*members_of(protocol), *needed)))


def warn_of_half_written(value: object, protocols: tuple[type, ...]) -> None:
    """Warn of members that the library does not look at because others are missing.

    Args:
        value:
            The backend, the model or the sensitivity.
        protocols:
            What it may offer.
    """
    names = {name for protocol in protocols for name in together(protocol)}
    # None in the place of a method takes back what a base class offers.
    has = {
        n
        for n in names
        if has_member(value, n) and inspect.getattr_static(value, n, 0) is not None
    }
    whole = [
        set(together(protocol)) for protocol in protocols if has.issuperset(together(protocol))
    ]
    unused = has.difference(*whole)
    for protocol in protocols:
        wanted = together(protocol)
        if unused.isdisjoint(members_of(protocol)):
            continue
        found = ", ".join(name for name in wanted if name in has)
        missing = ", ".join(name for name in wanted if name not in has)
        warn_user(
            f"{type(value).__name__} has {found} but not {missing}, so the library does without "
            f"{protocol.__name__}: {WITHOUT[protocol]}."
        )
