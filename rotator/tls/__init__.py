"""TLS handshakes, with a listener and in memory. Never: a verdict on what they show."""
