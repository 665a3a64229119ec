"""What is in a container, for people who must know: its package databases → SPDX or CycloneDX.

database    the databases of dpkg and apk, read inside the root → packages as values
licenses    what Debian calls licenses → what SPDX calls them
spdx        packages → SPDX 2.3, JSON
cyclonedx   packages → CycloneDX 1.6, JSON

The same container gives the same bytes: no clock, no random number.
"""
