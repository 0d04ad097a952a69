"""Pseudonyms, the secret behind them, and libraries that must not print."""
