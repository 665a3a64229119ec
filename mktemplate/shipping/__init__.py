"""Containers that go elsewhere or come from there: images, archives, registries, LXC, and what is in them."""
