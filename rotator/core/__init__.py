"""What every package shares: values, problems, errors, texts. Never: an effect, or an import of another package."""
