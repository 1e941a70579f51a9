"""Something to move in a notebook. Python computes what is seen, a small script draws it."""
