"""From photos on disk to a cache of uint8 arrays, made once. Imports nothing else of this project."""
