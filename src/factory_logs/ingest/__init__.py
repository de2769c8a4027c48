"""The write path: validation, group commit, COPY of batches, idempotency."""
