# The layout as machines of the lab: one network per region, one systemd-nspawn machine per host.
locals {
  of_pool = { for pool in ["nameservice", "loadbalancer"] : pool => sort([for h in var.hosts : h.address if h.pool == pool]) }
}

resource "lab_network" "region" {
  name          = var.name
  cidr          = var.cidr
  nameservers   = join(",", local.of_pool.nameservice)
  loadbalancers = join(",", local.of_pool.loadbalancer)
}

resource "lab_server" "host" {
  for_each        = var.hosts
  name            = each.value.name
  zone            = var.azs[each.value.az].index
  address         = each.value.address
  disks           = each.value.disks
  disk_size_bytes = each.value.disk_size_bytes
  network         = lab_network.region.id
  desired_state   = "running"
}
