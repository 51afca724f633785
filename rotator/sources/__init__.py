"""The sources of renewals and of trust files: scanning, reading and delivering files. Never: a verdict on them."""
