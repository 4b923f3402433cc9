"""How a picture stands in a notebook."""


class Displayed:
    """As words: a notebook asks for pixels without `await`, and these have to be fetched."""
