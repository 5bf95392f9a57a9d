"""Image autoencoders: pixels to the tokens that paradigms read, and back."""
