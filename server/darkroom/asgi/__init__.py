"""The event loop: connections, requests on their way to Flask and back, and all that only waits."""
