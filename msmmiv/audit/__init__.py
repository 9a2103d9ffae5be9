"""The audit: what each of the nine assumptions says and what the data have to say about it."""

from msmmiv.audit.assumptions import (
    Assumption,
    AssumptionPart,
    AssumptionVariant,
    Prompts,
    load_assumptions,
)

__all__ = [
    "Assumption",
    "AssumptionPart",
    "AssumptionVariant",
    "Prompts",
    "load_assumptions",
]
