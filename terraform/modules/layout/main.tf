# Pure arithmetic: which hosts a region has and where each of them stands. No providers, so that it can be tested anywhere.
locals {
  # Last octet of the first host of each pool in its zone's /24; there is room for nine in each.
  first_octet = { nameservice = 11, api = 21, storage = 41, metadata = 61, loadbalancer = 81 }

  azs = { for i, az in var.azs : az => {
    index   = i + 1
    cidr    = cidrsubnet(var.cidr, 8, i + 1)
    gateway = cidrhost(cidrsubnet(var.cidr, 8, i + 1), 1)
  } }

  # One metadata host per shard and zone: a shard's peers are in three zones by construction.
  counts = merge(var.pools, { metadata = var.shards })

  places = flatten([for az, zone in local.azs : [for pool, count in local.counts : [for index in range(1, count + 1) : {
    az      = az
    pool    = pool
    index   = index
    name    = format("%s-%s-%s-%02d", var.name, az, pool, index)
    address = cidrhost(zone.cidr, local.first_octet[pool] + index - 1)
  }]]])

  hosts = { for place in local.places : place.name => merge(place, {
    shard           = place.pool == "metadata" ? place.index : 0
    disks           = place.pool == "storage" ? var.disks.count : 0
    disk_size_bytes = place.pool == "storage" ? var.disks.size_bytes : 0
  }) }

  networks = {
    op      = cidrhost(var.cidr, 250 * 256 + 1)
    pub     = cidrhost(var.cidr, 240 * 256 + 1)
    clients = { for az, zone in local.azs : az => cidrhost(zone.cidr, 250) }
  }
}
