"""Packages to layers: from a distribution's signed index to configured, content-addressed layers.

Read in this order: provision (the whole story), sources, trust, deb.index, resolver, download, unpack, configure,
tree, store. Nothing here knows namespaces or Jinja; what it needs of namespaces is `sandbox.Sandbox`, handed in.
"""
