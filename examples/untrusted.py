"""A program that nobody vouches for, with no network, 64 MiB and two seconds: python examples/untrusted.py"""

import mktemplate
from mktemplate import sandbox

PROGRAM = 'echo "I am $(id -un) of $(hostname)"; cat; exec sleep 60'

try:
    print(sandbox.run(["sh", "-c", PROGRAM], input="your data\n", memory="64M", timeout=2))
except mktemplate.MktemplateError as error:
    print(f"{error.code}: {error.detail}")
    print(
        sandbox.run(["sh", "-c", "wc -c </dev/stdin"], input="your data\n").stdout.strip(), "bytes"
    )
