variable "name" {
  description = "Name of the region."
  type        = string
}

variable "cidr" {
  description = "Address range of the region."
  type        = string
}

variable "azs" {
  description = "Zones, as modules/layout has them."
  type        = map(object({ index = number, cidr = string, gateway = string }))
}

variable "hosts" {
  description = "Hosts, as modules/layout has them."
  type = map(object({
    name            = string, az = string, pool = string, index = number, address = string, shard = number, disks = number,
    disk_size_bytes = number
  }))
}
