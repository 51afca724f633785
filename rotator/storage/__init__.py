"""The records of rotator on the disk: generations, decisions, history, locks. Never: files that nginx reads."""
