"""From decoded pixels to what is stored: normalisation, quality, encoding, fingerprints."""
