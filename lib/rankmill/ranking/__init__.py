"""Pure policy: order, ties, top-k. Arrays and tables in, tables out."""
