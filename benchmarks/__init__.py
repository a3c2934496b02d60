"""Speed of the hot paths, as ratios within one run: machines differ and are noisy, ratios much less so."""
