variables {
  name   = "lab"
  domain = "mobula.test"
  cidr   = "10.77.0.0/16"
  pools  = { storage = 2, api = 2, loadbalancer = 2 }
  shards = 2
}

run "the_lab_profile_has_27_hosts_at_fixed_addresses" {
  command = plan
  assert {
    condition     = length(output.hosts) == 27
    error_message = "expected 27 hosts, found ${length(output.hosts)}"
  }
  assert {
    condition     = output.hosts["lab-b-storage-02"].address == "10.77.2.42"
    error_message = "lab-b-storage-02 stands at ${output.hosts["lab-b-storage-02"].address}"
  }
  assert {
    condition     = output.networks.op == "10.77.250.1" && output.networks.clients["c"] == "10.77.3.250"
    error_message = "the networks are not where they belong: ${jsonencode(output.networks)}"
  }
}

run "a_shards_peers_are_in_three_zones" {
  command = plan
  assert {
    condition     = alltrue([for s in [1, 2] : length(distinct([for h in output.hosts : h.az if h.shard == s])) == 3])
    error_message = "a shard has two peers in one zone"
  }
}

run "no_two_hosts_share_an_address" {
  command = plan
  assert {
    condition     = length(distinct([for h in output.hosts : h.address])) == length(output.hosts)
    error_message = "two hosts have the same address"
  }
}

run "only_storage_hosts_have_disks" {
  command = plan
  assert {
    condition     = alltrue([for h in output.hosts : (h.pool == "storage") == (h.disks == 14)])
    error_message = "disks are where they don't belong"
  }
}

run "two_zones_are_refused" {
  command = plan
  variables {
    azs = ["a", "b"]
  }
  expect_failures = [var.azs]
}

run "an_uneven_number_of_disks_is_refused" {
  command = plan
  variables {
    disks = { count = 15 }
  }
  expect_failures = [var.disks]
}

run "a_small_network_is_refused" {
  command = plan
  variables {
    cidr = "10.77.1.0/24"
  }
  expect_failures = [var.cidr]
}

run "a_pool_without_hosts_is_refused" {
  command = plan
  variables {
    pools = { storage = 0, api = 1, loadbalancer = 1 }
  }
  expect_failures = [var.pools]
}
