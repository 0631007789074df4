"""Measures of rankings against judgements, and how they are shown. No ray here."""
