"""Figures for Prometheus: ingest, stream, training, pages. Needs the extra `metrics`.

Names follow Prometheus' rules: `biovfm_<part>_<what>_<unit>`, counters end in `_total`, seconds and bytes are the only
units of time and size, shares are ratios from 0 to 1.
"""
