"""python -m mobula.storage --config /etc/mobula/storage.json"""

from mobula.storage.app import build
from mobula.storage.config import StorageConfig
from mobula.wire import service

if __name__ == "__main__":
    service.main("storage", StorageConfig, build)
