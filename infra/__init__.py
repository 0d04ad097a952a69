"""The outer shell: command line, pages, benchmarks, deployment."""
