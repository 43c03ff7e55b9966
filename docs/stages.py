"""What the pictures of the strategies show, see ``draw_stages.py``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A stage.

    Args:
        name:
            As it is in the record.
        text:
            What it does, in short lines.
        rows:
            Configurations of it. A letter for each op: ``q`` quantized as by default, ``o``
            quantized in another way, ``d`` dynamic, ``F`` FP32; then, after a space, a note.
            ``...`` for more of them.
        back_to:
            The name of the step that may follow instead of the next one.
    """

    name: str
    text: tuple[str, ...]
    rows: tuple[str, ...]
    back_to: str = ""


@dataclass(frozen=True)
class Picture:
    """A strategy.

    Args:
        name:
            Its name, and that of the file.
        steps:
            Its stages, in order.
    """

    name: str
    steps: tuple[Step, ...]


_BASELINE = Step("baseline", ("The FP32 model, once per study.",), ("FFFFFFFF",))
_DEFAULT = Step("default", ("Every op in its first option.",), ("qqqqqqqq not met",))
_OP_TYPES = (
    Step(
        "op-type-wise",
        ("Another option for all ops of one type", "(algorithm, granularity), the types in turn."),
        ("oooooqqq best", "qqqqqooo", "..."),
    ),
    Step(
        "op-type-wise combined",
        ("Combinations of the changes that gained,", "the most promising first."),
        ("oooooooo", "..."),
    ),
    Step(
        "static to dynamic",
        ("All ops that allow it; only with", 'approach="auto".'),
        ("ooooodqd",),
    ),
)

_BY_HALVES = Step(
    "fallback by halves",
    (
        "From FP32: the halves, quarters, ... of a type",
        "are quantized if they fit. A few trials here,",
        "so that there is an answer; then the settings.",
    ),
    ("qqqqFFFF not met", "qqFFFFFF not met", "qFFFFFFF met", "qFFFqqFF met", "..."),
)

BASIC = Picture(
    "basic",
    (
        _BASELINE,
        _DEFAULT,
        _BY_HALVES,
        *_OP_TYPES,
        Step(
            "fallback by halves, to the end",
            (
                "In the best options. The answer, if at most a",
                "quarter of the ops is in FP32. What follows is",
                "for other cases, or a search that goes on.",
            ),
            ("oFFFoqFF met", "oFoooqFF met", "oFoooqFq answer"),
        ),
        Step(
            "instance-wise fallback",
            (
                "On top of the best so far: one op in FP32,",
                "from the last to the first. Ranks the ops by",
                "what each gains.",
            ),
            ("oooooqqF", "oooooqFq helps", "...", "oFoooqqq helps most", "Foooo" + "qqq"),
        ),
        Step(
            "instance-wise quantization",
            (
                "Only if no single fallback closes a quarter",
                "of the gap to FP32: one op quantized, the",
                "rest in FP32. Ranks by the harm of each.",
            ),
            ("FFFFFFFq", "FFFFFFqF", "..."),
        ),
        Step(
            "accumulated fallback",
            (
                "The ops together, in that order. No progress",
                "for 4 ops (patience): the rest is ranked again",
                "on top of what helped.",
            ),
            ("oFoooqqq not met", "oFoooqFq not met", "oFFooqFq met"),
            back_to="instance-wise fallback",
        ),
        Step(
            "quantized again",
            (
                "For a search that goes on: what of it has to",
                "stay in FP32? One by one, then together.",
            ),
            ("ooFooqFq not met", "oFoooqFq not met"),
        ),
    ),
)

_CONVERT = (
    Step(
        "convert TYPE",
        (
            "All ops of a type at once: convolutions, then",
            "matrix products, then the others. What meets",
            "the criterion stays.",
        ),
        ("qqqqqFFF not met",),
    ),
    Step(
        "convert TYPE by halves",
        (
            "If the type fails: its halves, quarters, ...,",
            "the largest group next. What fits stays.",
        ),
        ("qqqFFFFF not met", "qqFFFFFF not met", "qFFFFFFF met", "qFFqqFFF met"),
        back_to="convert TYPE",
    ),
    Step(
        "convert TYPE op by op, one by one",
        (
            "If more than a quarter of a type is left: each",
            "of its ops alone. Ranks them; drops what fails",
            "by itself.",
        ),
        ("qFFFFFFF met", "FqFFFFFF not met", "FFqFFFFF met", "..."),
    ),
    Step(
        "convert TYPE op by op",
        (
            "As many as fit together: all, else the better",
            "half, then the rest on top of it. Repeated until",
            "nothing more fits. Taken if it is more.",
        ),
        ("qFqqqFFF not met", "qFqFFFFF met", "qFqqFFFF met"),
    ),
    Step(
        "convert what is left",
        ("The ops that did not fit, once more, on top", "of all types together."),
        ("qFqqqqqq met", "qqqqqqqq not met"),
    ),
)
_ANSWER = Step("answer", ("What stands at the end.",), ("qFqqqqqq answer",))

CONSERVATIVE = Picture(
    "conservative",
    (
        _BASELINE,
        Step(
            "convert everything",
            ("If that meets the criterion it is the answer.",),
            ("qqqqqqqq not met",),
        ),
        *_CONVERT,
        _ANSWER,
    ),
)

_BELIEVED = (
    _BASELINE,
    Step(
        "cheapest to start with",
        (
            "What costs least, whatever its accuracy. If that",
            "meets the criterion it is the answer.",
        ),
        ("qqqqqqqq not met",),
    ),
    Step(
        "cheapest believed to meet",
        (
            "Of what a model of the loss believes to meet the",
            "criterion, what promises most: what it saves",
            "times its probability. Each trial teaches it.",
        ),
        ("qFqqqFFF met", "qFqqqqqF not met", "qFqqqFoq met"),
    ),
    Step(
        "answer",
        (
            "Where samples are evaluated one by one: the",
            "cheapest one that probably meets the criterion,",
            "on all samples.",
        ),
        ("qFqqqFoq answer",),
        back_to="cheapest believed to meet",
    ),
)

SURROGATE = Picture("surrogate", _BELIEVED)
AUTO = Picture("auto", _BELIEVED)

_EARLY = Step(
    "accumulated fallback, early",
    (
        "As below, but for the default: so that there is",
        "an answer before other options are tried.",
    ),
    ("qFqqqqqq not met", "qFqqqqFq not met", "qFFFqqFq met"),
)
_SETTINGS = Step(
    "op-type-wise, static to dynamic",
    ("As basic: how ops are quantized is settled", "before which are not."),
    ("oooooqqq best", "..."),
)
_TAKEN_BACK = Step(
    "quantized again",
    ("As many of them as the criterion allows, the", "least sensitive first."),
    ("oooooqFq not met", "oFoooqFq met"),
)

MSE = Picture(
    "mse",
    (
        _BASELINE,
        _DEFAULT,
        _EARLY,
        _SETTINGS,
        Step(
            "scores",
            (
                "No trial: one pass of FP32 and of the best so",
                "far gives the error of each op's output.",
            ),
            ("oooooqqq",),
        ),
        Step(
            "accumulated fallback",
            (
                "1, 2, 4, ... ops together, the highest error",
                "first, until the criterion is met; then between",
                "the last two by halves.",
            ),
            ("oFoooqqq not met", "oFoooqFq not met", "oFFFoqFq met", "oFFooqFq met"),
        ),
        _TAKEN_BACK,
        Step("answer", ("What stands at the end.",), ("oFoooqFq answer",)),
    ),
)

HAWQ_V2 = Picture(
    "hawq_v2",
    (
        _BASELINE,
        _DEFAULT,
        _EARLY,
        _SETTINGS,
        Step(
            "scores",
            (
                "No trial: Hessian trace of the loss in each",
                "weight, times the weight's squared",
                "perturbation.",
            ),
            ("oooooqqq",),
        ),
        Step(
            "accumulated fallback",
            (
                "1, 2, 4, ... ops together, the highest score",
                "first, until the criterion is met; then between",
                "the last two by halves.",
            ),
            ("oFoooqqq not met", "oFoooqFq not met", "oFFFoqFq met", "oFFooqFq met"),
        ),
        _TAKEN_BACK,
        Step("answer", ("What stands at the end.",), ("oFoooqFq answer",)),
    ),
)

MSE_V2 = Picture(
    "mse_v2",
    (
        _BASELINE,
        _DEFAULT,
        Step("fallback of the most sensitive, early", _EARLY.text, _EARLY.rows),
        _SETTINGS,
        Step(
            "scores",
            (
                "No trial: how far each op moves the model's",
                "output, given what is in FP32 already.",
            ),
            ("oFoooqqq",),
        ),
        Step(
            "fallback of the most sensitive",
            (
                "1, 1, 2, 4, ... ops more, those with the highest",
                "score. Scored again after each step, until the",
                "criterion is met.",
            ),
            ("oFoooqqq not met", "oFoooqFq not met", "oFFFoqFq met"),
            back_to="scores",
        ),
        Step(
            "revert the least sensitive",
            ("As many as the criterion allows are quantized", "again."),
            ("ooFFoqqq not met", "ooFooqFq met"),
        ),
        Step("answer", ("What stands at the end.",), ("ooFooqFq answer",)),
    ),
)

EXHAUSTIVE = Picture(
    "exhaustive",
    (
        _BASELINE,
        Step(
            "exhaustive",
            (
                "Every configuration of the space in order, the",
                "default first; the last op runs fastest.",
                "fallback=True includes FP32 choices.",
            ),
            ("qqqqqqqq", "qqqqqqqo", "qqqqqqoq", "qqqqqqoo", "..."),
        ),
    ),
)

RANDOM = Picture(
    "random",
    (
        _BASELINE,
        Step(
            "random",
            (
                "The same configurations in an order that is",
                "computed from the seed; none comes twice.",
                "The default is first.",
            ),
            ("qqqqqqqq", "oqqooqqo", "qoqoqqoq", "..."),
        ),
    ),
)

_STARTUP = Step(
    "default",
    ("The default, then some at random until there", "are ten results (n_startup_trials)."),
    ("qqqqqqqq", "oqqooqqo", "..."),
)

BAYESIAN = Picture(
    "bayesian",
    (
        _BASELINE,
        Step("bayesian", _STARTUP.text, _STARTUP.rows),
        Step(
            "bayesian, continued",
            (
                "The configuration of the highest expected",
                "improvement, found by changing one op at a",
                "time. The model is fitted again after each",
                "trial.",
            ),
            ("ooqooqqo better", "ooqoqqqo", "ooqooqoo better", "..."),
            back_to="bayesian, continued",
        ),
    ),
)

TPE = Picture(
    "tpe",
    (
        _BASELINE,
        Step("tpe", _STARTUP.text, _STARTUP.rows),
        Step(
            "tpe, continued",
            (
                "What TPE proposes from the results so far; if",
                "that is known, it is asked again, and then one",
                "op is changed.",
            ),
            ("ooqooqqo better", "oqqooqoo", "ooqooqoo better", "..."),
            back_to="tpe, continued",
        ),
    ),
)

PARETO = Picture(
    "pareto",
    (
        _BASELINE,
        Step("cheapest to start with", ("What costs least, whatever it loses.",), ("qqoqqqqq",)),
        Step(
            "front",
            (
                "The configuration with the largest expected",
                "gain in hypervolume. The model of the loss is",
                "fitted again after each trial.",
            ),
            ("qFoqqqFq better", "qFoqFqFq", "qqoqqqFq better", "..."),
            back_to="front",
        ),
    ),
)

OWN = Picture(
    "own",
    (
        _BASELINE,
        _DEFAULT,
        Step(
            "one more in FP32",
            ("Each op that is still quantized, on top of the", "best of the stage before."),
            ("Fqqqqqqq", "qFqqqqqq best", "...", "FFqqqqqq", "qFqqFqqq met"),
            back_to="one more in FP32",
        ),
    ),
)

PICTURES = (
    AUTO,
    SURROGATE,
    CONSERVATIVE,
    BASIC,
    MSE,
    MSE_V2,
    HAWQ_V2,
    BAYESIAN,
    TPE,
    PARETO,
    EXHAUSTIVE,
    RANDOM,
    OWN,
)
