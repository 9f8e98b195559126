"""python -m mobula.agent --config /etc/mobula/agent.json"""

from mobula.agent.app import Agent
from mobula.agent.config import AgentConfig
from mobula.wire import service

if __name__ == "__main__":
    service.main("agent", AgentConfig, Agent)
