"""`make image-check`: the Dockerfile is built, and what docker-compose.yml says is run and hurt."""
