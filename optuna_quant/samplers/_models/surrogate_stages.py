"""The names of the stages of the surrogate strategy, which its claims carry."""

from __future__ import annotations


START_STAGE = "cheapest of all"
SEARCH_STAGE = "cheapest believed to meet"
ANSWER_STAGE = "answer"
EARLIER_STAGE = "earlier answer"
