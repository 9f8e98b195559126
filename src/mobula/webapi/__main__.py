"""python -m mobula.webapi --config /etc/mobula/webapi.json"""

import socket

from mobula.webapi.app import Service
from mobula.webapi.config import WebapiConfig
from mobula.wire import service

if __name__ == "__main__":
    # Clients take the feature set from the Server header.
    service.main(
        "webapi", WebapiConfig, Service, identity=[("Server", "Manta"), ("x-server-name", socket.gethostname())]
    )
