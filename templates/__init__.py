"""The built-in templates, one folder per service: template.toml, tree.j2, config.j2, files/. Data only.

The format is defined in docs/template-format.md.
"""
