"""python -m mobula.supervisor --config /etc/mobula/supervisor.json"""

from mobula.supervisor.app import Supervisor
from mobula.supervisor.config import SupervisorConfig
from mobula.wire import service

if __name__ == "__main__":
    service.main("supervisor", SupervisorConfig, Supervisor)
