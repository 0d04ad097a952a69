"""Pages: HTML, charts, and the server that shows a dataset."""
