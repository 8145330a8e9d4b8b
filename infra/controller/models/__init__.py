"""Models of accuracy and latency, and the Gaussian processes under them."""
