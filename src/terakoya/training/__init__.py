"""Training: what may be asked, how it is resolved, the strategies, and the loop that runs them."""
