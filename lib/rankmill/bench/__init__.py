"""What `rankmill bench` measures and how: peers, statistics, arithmetic. Printing and flags are `cli.bench`'s."""
