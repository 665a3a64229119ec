"""Images of others → layers: OCI and Docker images from files and registries, plain rootfs tars, LXC directories.

Read in this order: `manifest` and `config` (documents → values), `reference` (how an image is named), `files` and
`registry` (where its blobs come from), `place` (one layer's members into a root), `unpack` (blobs → store layers).

An image is hostile throughout: each document is parsed under limits, each blob is held against its digest and size
before anything reads it, and what is decompressed or unpacked is so in a sandbox that has only the new root in reach.
"""
