"""What the machinery around a scorer costs, measured at sizes that one machine can simulate.

A measurement is a function from settings to a `Measured`; `jobs/scale.py` runs them. No model is loaded.
"""
