"""What a model sees and learns from: the codecs that turn sample videos into latents."""
