"""First stages: candidates for queries. No ray here."""
