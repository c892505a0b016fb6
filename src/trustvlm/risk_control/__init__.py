"""Thresholds with a guarantee: certificates, goals, costs, and the rule that accepts or reviews."""
