"""How a picture was made: where the network looked for each token, and what it did at each step."""
