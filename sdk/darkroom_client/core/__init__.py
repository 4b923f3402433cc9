"""What every client shares: requests to bytes and bytes to records. Does no IO on the network.

May not import httpx2, so that a client of another kind (asynchronous, say) can stand on it.
"""
