"""All knowledge of nginx: its command, its test of a pair, its workers. Never: a signal to it, a write to its files."""
