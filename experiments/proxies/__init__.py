"""Zero-cost proxies, one file each: what an arch promises before it is trained."""
