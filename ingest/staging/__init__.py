"""The staging folder of a job: its files, tables and paths."""
