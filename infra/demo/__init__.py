"""The demo: the whole way of the data on real images that ordinary packages ship."""
