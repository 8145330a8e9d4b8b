"""One trial, from a request to a score: the page that tells it whole, its stages, what they start from."""
