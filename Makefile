# Verbs only; the work is done by ./mobula, ops/ and the tools. R names the region, PROFILE its size.
R ?= lab
PROFILE ?=
BENCH ?=
SHELL := /bin/sh

.PHONY: help up down test harm fuzz molecule test-cgroup2 check golden bench
help: ## list what can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## /make \1 \t/p' Makefile | expand -t 21

up: ## start region R (PROFILE=small or lab), or bring it to what this clone says
	@./mobula -R $(R) up $(if $(PROFILE),--profile $(PROFILE))

down: ## remove everything of region R from this machine
	@./mobula -R $(R) down

check: ## lint, types, imports, terraform, unit and golden tests
	@tests/run check

test: ## start a small region called test, run every suite against it, take it down
	@tests/run test

harm: ## losses, planted deviations and damaged copies on a standing region (MOBULA_TEST_REGION)
	@tests/run harm

fuzz: ## every parser on made-up input, and many clients on real shards, for half an hour
	@tests/run fuzz

molecule: ## test the roles, each on a machine of its own
	@tests/run molecule

test-cgroup2: ## try the launcher for hosts with cgroup v2 and systemd, in a virtual machine (emulated: minutes)
	@tests/run cgroup2

golden: ## rewrite the golden files; the diff is for review
	@tests/run golden

bench: ## measure this clone beside OpenStack Swift and SeaweedFS (BENCH=--quick; docs/bench.md)
	@tests/run bench $(BENCH)
