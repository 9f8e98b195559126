output "azs" {
  description = "Zones by letter: index, address range, gateway."
  value       = local.azs
}

output "networks" {
  description = "Addresses of the operator's and the public namespace, and of the client host in each zone."
  value       = local.networks
}

output "hosts" {
  description = "Hosts by name: zone, pool, address, shard, disks."
  value       = local.hosts
}
