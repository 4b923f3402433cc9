"""How tintype, the embedded model, was made. Imports torch and diffusers, never `darkroom`."""
