"""Whether a strict client would accept a pair, as pure functions. Never: a file, a clock, the network."""
