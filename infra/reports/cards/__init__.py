"""Cards of a dataset or lock, to publish beside it: Markdown, Hugging Face, Croissant."""
