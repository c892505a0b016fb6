"""From verdicts to decisions: accept, or let a person review."""

from __future__ import annotations

from trustvlm.decisions.uncalibrated import UNCALIBRATED_RULE, accept_on_agreement

__all__ = ["UNCALIBRATED_RULE", "accept_on_agreement"]
