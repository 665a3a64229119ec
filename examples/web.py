"""A web server for as long as a block lasts: python examples/web.py"""

from urllib.request import urlopen

import mktemplate

with mktemplate.ephemeral("nginx", distro="debian", memory="128M") as web:
    host, port = web.address()
    with urlopen(f"http://{host}:{port}/", timeout=10) as page:
        print(web.name, "answers", page.status, page.headers["Server"])
    print(web.exec(["nginx", "-t"]).stderr.splitlines()[-1])
