"""History in: files and generators to arrays by stream, and batches of them."""
