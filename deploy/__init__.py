"""How perfstream is run: the command line, the local stack, compose, images."""
