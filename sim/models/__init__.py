"""Model geometry: what a Hugging Face config.json says of layers, weights and K/V bytes a token."""
