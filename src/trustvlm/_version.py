"""The version of this package."""

__version__ = "0.2.0"
"""Of the installed package, after Semantic Versioning."""
