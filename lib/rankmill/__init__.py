"""Rankmill re-scores query-candidate lists with a cross-encoder, in bulk on Ray Data and online on Ray Serve."""

__version__ = "0.1.0"
