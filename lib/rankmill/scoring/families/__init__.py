"""One module per kind of model: what it is recognised by, its checks, what it reads and how its weights are loaded.

A module gives a class that fits `scoring.model.Model`; `recognise` chooses it from the model's own files.
"""
