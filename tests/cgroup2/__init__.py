"""The launcher on hosts with cgroup v2 and systemd as PID 1, tried in a virtual machine: `make test-cgroup2`."""
