"""What a source is: its specification, the catalogue, data lists."""
