"""The knowledge of nginx: its command, its pair test, its workers. Never: a signal to it, or a write to its files."""
