"""The UNet and the VAE of a model computed by OpenVINO instead of torch: `engine.backend`."""
