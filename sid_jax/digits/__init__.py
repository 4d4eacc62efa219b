"""Making a small Stable Diffusion from scratch: its tokenizer, autoencoder, text encoder and UNet, and its metric."""
