"""From a request to PATH/NAME: where packages come from, which layers they make, what a container is given.

Reading order: asked, origins, asking, supply, layering, assembly; recorded is what is written down of it.
"""
