"""From a template's files to the texts of a container.

Reading order: spec (template.toml, read and reported on), facts (what a template is told), render (Jinja), texts;
library finds templates, jail renders those of somebody else, grants says what these may do.
"""
