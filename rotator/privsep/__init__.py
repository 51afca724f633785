"""The privileged step and the ways to reach it. Never: parsing bytes that other users could have written."""
