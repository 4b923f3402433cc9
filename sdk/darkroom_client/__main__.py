"""`python -m darkroom_client` is `darkroom-client`."""

from darkroom_client.terminal import main

main()
