"""C sources of the native decoder and what compiles them."""
