"""The privileged step and the ways to reach it. Never: parsing a certificate or a key."""
