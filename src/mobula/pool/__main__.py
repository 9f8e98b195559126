"""python -m mobula.pool --config /etc/mobula/pool-agent.json"""

from mobula.pool.agent import build
from mobula.pool.config import PoolConfig
from mobula.wire import service

if __name__ == "__main__":
    service.main("pool-agent", PoolConfig, build)
