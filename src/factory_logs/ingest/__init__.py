"""The write path: validate, admit, group commit, COPY; idempotency."""
