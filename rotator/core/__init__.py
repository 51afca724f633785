"""The values, problems, reasons and errors that every package shares. Never: an effect, or another package."""
