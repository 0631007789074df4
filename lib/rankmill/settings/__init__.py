"""One frozen settings model per command; unknown keys are refused. Built at the entry point and passed whole."""
