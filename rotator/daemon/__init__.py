"""The daemon: its loop, and its life as a service. Never: a rule of rotation or validation."""
