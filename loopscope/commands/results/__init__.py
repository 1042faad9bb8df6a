"""Results: reports, bundles, comparisons and answers, and what people said of them."""
