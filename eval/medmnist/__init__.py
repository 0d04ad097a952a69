"""The MedMNIST tasks: what they are, and their images."""
