"""One trial: fine-tune a network on the cache and report how well it does. Only `__main__` knows NNI."""
