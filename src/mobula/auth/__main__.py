"""python -m mobula.auth --config /etc/mobula/authcache.json"""

from mobula.auth.app import Authcache
from mobula.auth.config import AuthcacheConfig
from mobula.wire import service

service.main("authcache", AuthcacheConfig, Authcache, tls=lambda config: config.tls.server_context())
