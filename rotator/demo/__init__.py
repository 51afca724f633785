"""The demo: a CA, an nginx and a daemon in a temporary directory, and scenarios. Never: a rule of a renewal."""
