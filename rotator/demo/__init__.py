"""The demo: a CA, an nginx and a daemon in a temporary directory. Never: a rule of a renewal."""
