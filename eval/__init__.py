"""Probes on the MedMNIST tasks and the scaling analysis."""
