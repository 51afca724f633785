"""Where renewals and trust files come from: reading, scanning and delivering files. Never: parsing or judging them."""
