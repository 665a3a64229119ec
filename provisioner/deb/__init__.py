"""The Debian format: index, version order, archives, maintainer scripts, trust."""
