"""The networks, a module each, and what builds and loads them."""
