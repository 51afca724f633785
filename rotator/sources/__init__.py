"""The sources of renewals and trust files: reading, scanning and delivering them. Never: parsing or judging them."""
