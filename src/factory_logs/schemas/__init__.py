"""The outside shape of each resource, as Pydantic models. Leaves: nothing of the server is imported here."""
