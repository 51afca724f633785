"""Bytes to objects: PEM, DER, keys, containers, lists. Never: a policy, a file, a clock."""
