"""The names of the surrogate strategy's stages, as stored in its claims."""

from __future__ import annotations


START_STAGE = "cheapest to start with"
SIZE_STAGE = "calibration size"
SEARCH_STAGE = "cheapest believed to meet"
ANSWER_STAGE = "answer"
RECIPES_STAGE = "cheapest with recipes"
EARLIER_STAGE = "earlier answer"
