"""Columns of the user's own: read from a table, checked for identifiers, typed, and joined to the samples."""
