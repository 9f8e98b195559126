output "region" {
  description = "All that the later stages read of Terraform: see docs/architecture.md, section 2."
  value = {
    shape      = 1
    name       = var.name
    domain     = var.domain
    backend    = "lab"
    cidr       = var.cidr
    profile    = var.profile
    relay_port = var.relay_port
    drillable  = var.drillable
    shards     = var.shards
    azs        = module.layout.azs
    networks   = module.layout.networks
    hosts      = module.layout.hosts
  }
}
