"""The audit: what each of the nine assumptions says and what the data have to say about it."""

from msmmiv.audit.assumption_files import load_assumptions
from msmmiv.audit.assumptions import Assumption, AssumptionPart, AssumptionVariant, Prompts

__all__ = ["Assumption", "AssumptionPart", "AssumptionVariant", "Prompts", "load_assumptions"]
