"""The start program's interpreters: one per machine, as source and as the bytes that it assembles to."""
