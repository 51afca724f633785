"""The privileged step, and the ways to reach it. Never: parsing what a stranger could have written."""
