"""Which features make a production model and its shadow disagree, where, since when, and what to do."""

__version__ = "0.1.0"
