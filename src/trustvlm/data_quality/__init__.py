"""Label errors, outliers, near-duplicates, overlapping classes, and what to label next."""
