"""The use case: from a candidate to a proved outcome, through ports. Never: a system call."""
