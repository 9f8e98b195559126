"""python -m mobula.workers --config /etc/mobula/worker.json"""

from mobula.wire import service
from mobula.workers.app import Worker
from mobula.workers.config import WorkerConfig

if __name__ == "__main__":
    service.main("worker", WorkerConfig, Worker)
