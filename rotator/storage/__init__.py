"""What rotator keeps on the disk: generations, decisions, history, locks. Never: what nginx reads."""
