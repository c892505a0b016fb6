"""Prediction on any number of images: resumable, in bounded memory, here or on a cluster."""

from trustvlm.bulk.job import BulkSummary, predict_in_bulk

__all__ = ["BulkSummary", "predict_in_bulk"]
