"""The demonstration: the standard library's documentation as a corpus, and questions that people ask about it."""
