"""The command line: the grammar as tables, the words parsed into one frozen Request, the help.

Reading order: verb, options, grammar, parsing, arguments, usage. It knows no template, package or container.
"""
