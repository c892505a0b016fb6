"""Figures for reports and studies."""
