"""Pictures of what happens inside the demo model, for docs/how-it-works.md. `make inside`.

Everything is computed with stock diffusers on the CPU from fixed seeds, so it comes out the same
each time. `diffusion` shows the forward and the reverse process, `autoencoder` the VAE, `words` the
text encoder and the attention, `sweeps` what settings do, and `flows` the arrays of a request.
"""
